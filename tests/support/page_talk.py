"""A session of the server that the page's tests have: turns in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from griffin.server.endpoints.sessions.reply import SessionObject, TurnObject

STATE_BYTES = 17_238_016
FIXED, PER_TOKEN = 460_800, 8_192


@dataclass
class Talk:
    """A session: its turns, and the number of the one it stands at."""

    id: str
    title: str
    turns: list[TurnObject] = field(default_factory=list)
    head: int | None = None
    parent: str | None = None
    system: str | None = None
    last_used: float = field(default_factory=time.time)
    busy: bool = False

    def path(self) -> list[TurnObject]:
        found: list[TurnObject] = []
        at = self.head
        while at is not None:
            found.insert(0, self.turns[at - 1])
            at = self.turns[at - 1].parent
        return found

    def add(self, role: str, text: str, finish: str | None = None) -> None:
        tokens = (self.path()[-1].tokens if self.head else 0) + len(text.split()) + 4
        number, now = len(self.turns) + 1, int(time.time())
        turn = TurnObject(
            id=number,
            parent=self.head,
            role=role,
            text=text,
            tokens=tokens,
            created=now,
            finish_reason=finish,
        )
        self.turns.append(turn)
        self.head, self.last_used = number, time.time()

    def has(self, words: str) -> bool:
        texts = (self.title, *(turn.text or "" for turn in self.turns))
        return any(words.lower() in text.lower() for text in texts)

    def object(self) -> SessionObject:
        path = self.path()
        tokens = path[-1].tokens if path else 0
        return SessionObject(
            id=self.id,
            created=1,
            last_used=int(self.last_used),
            title=self.title,
            tokens=tokens,
            turns=len(path),
            bytes=min(STATE_BYTES, FIXED + PER_TOKEN * tokens) if tokens else 0,
            head=self.head,
            system=self.system,
            parent=self.parent,
            busy=self.busy,
        )
