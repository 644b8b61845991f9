"""The terminal's conversation for a script, and what an answer is compared by."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from griffin.conversation import Conversation, begin, fingerprint_of
from griffin.llm import LLM
from griffin.server.conversations.asked import words_of
from griffin.server.protocol import Tool
from griffin.sessions import Session, Store

NEAR = 1e-4  # natural logarithms: pieces of other lengths add in another order


@dataclass
class Words:
    """What stands before a first message."""

    system: str = ""
    tools: list[Tool] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What one way of talking said: bytes and log-probability of each token shown."""

    text: str
    tokens: list[tuple[bytes, float]]

    def agrees(self, other: Answer, within: float = NEAR) -> bool:
        return (
            self.text == other.text
            and [token for token, _ in self.tokens] == [token for token, _ in other.tokens]
            and all(
                abs(a - b) <= within
                for (_, a), (_, b) in zip(self.tokens, other.tokens, strict=True)
            )
        )


class Terminal:
    """Conversation, on a store of its own."""

    def __init__(self, llm: LLM, folder: Path) -> None:
        self.llm, self.folder, self.name = llm, folder, "talk"
        self.store = Store(folder)
        self.sampling: dict[str, Any] = {}
        self.talk = Conversation(llm, begin(llm, self.store, self.name))

    @property
    def session(self) -> Session:
        return self.talk.session

    def sample(self, sampling: dict[str, Any]) -> None:
        """Go on in another run of the program, with other settings."""
        self.sampling = sampling
        self.talk = Conversation(self.llm, self.session, sampling=sampling)

    def words(self, words: Words) -> None:
        self.talk.instruct(words.system or None)
        told = {"tools_text": words_of(words.tools)}  # as a server leaves them
        self.session.update(settings=self.session.settings | told)

    def say(self, message: str) -> Answer:
        text = "".join(self.talk.say(message))
        result, tokenizer = self.talk.result, self.llm.tokenizer
        assert result is not None
        tokens = list(zip(result.ids, result.logprobs, strict=True))
        if result.finish_reason == "stop":  # no server shows the token that ends an answer
            tokens.pop()
        return Answer(text, [(tokenizer.token_bytes(id), value) for id, value in tokens])

    def restart(self) -> None:
        self.talk.close()
        self.store.close()
        self.store = Store(self.folder)
        session = self.store.open(self.name, fingerprint_of(self.llm))
        self.talk = Conversation(self.llm, session, sampling=self.sampling)

    def fork(self, name: str) -> None:
        self.name = name
        self.talk.fork(self.store, name)

    def carry(self, name: str) -> None:
        """Go on from a state file."""
        self.name, path = name, self.folder / "carried.state"
        self.session.export(path)
        self.store.import_(path, name)
        path.unlink()
        self.talk.switch(self.store.open(name, fingerprint_of(self.llm)))
