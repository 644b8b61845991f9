"""What one client does: asks at random, alone or in a session, waits for the end or goes away."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from griffin.llm import LLM
from tools.soak_server.talk import Said, Talk
from tools.soak_server.wire import Broken, Heard, Wire

STEMS = (
    "",
    "class Decoder:\n    def __init__(self, *, object_hook=None, parse_float=None):\n",
    "import json\n" * 30,
)
WORDS = [
    "def",
    "class",
    "import",
    "return",
    "self",
    "json",
    "float",
    "None",
    "x",
    "0",
    ",",
    "(",
    ")",
    "owl",
]
MOST_TURNS = 8


@dataclass
class Asked:
    """A chat that follows nothing, and what was heard of its answer."""

    body: dict[str, Any]
    n: int
    heard: Heard

    def check(self, llm: LLM) -> int:
        """Compare each choice with the answer that the model gives alone; return how many were
        compared."""
        sampling = {
            name: self.body[name] for name in ("max_tokens", "temperature", "top_k", "stop")
        }
        for choice in range(self.n):
            seed = self.body["seed"] + choice
            logprobs = 0 if self.body["logprobs"] else None
            alone = llm.chat(self.body["messages"], seed=seed, logprobs=logprobs, **sampling)
            text, where = self.heard.texts[choice], (self.body, choice)
            if not self.heard.whole:
                assert alone.text.startswith(text), (where, text, alone.text)
                continue
            assert text == alone.text, (where, text, alone.text)
            assert self.heard.finishes[choice] == alone.finish_reason, where
            if logprobs is not None and alone.finish_reason == "length":
                assert self.heard.logprobs[choice] == list(alone.logprobs), where
        return self.n


@dataclass
class Visitor:
    """A client. asked, talks: what is to be checked afterwards. done: what it did, counted."""

    wire: Wire
    chance: random.Random
    number: str
    talks: list[Talk] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    async def stay(self, until: float, rewinds: bool) -> None:
        """Come back again and again. Whether the server is killed meanwhile: Broken ends it."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self.chance.expovariate(20))
            doing = self.chance.random()
            try:
                if doing < 0.35:
                    await self.ask()
                elif doing < 0.45:
                    await self.leave_in_the_prompt()
                elif doing < 0.85 or not self.talks:
                    await self.say()
                elif doing < 0.93:
                    await self.fork()
                elif rewinds:
                    await self.rewind()
            except Broken:
                self.done["broken off"] += 1
                return

    def message(self, most: int = 20) -> str:
        words = self.chance.choices(WORDS, k=self.chance.randrange(1, most))
        return f"{self.chance.choice(STEMS)}{' '.join(words)} {self.chance.getrandbits(32):x}"

    async def ask(self) -> None:
        """Ask for one to three answers, whole or streamed, and now and then do not wait for their
        end."""
        chance = self.chance
        n = chance.choice([1, 1, 1, 2, 3])
        leave = chance.choice([None, None, chance.randrange(1, 12)])
        body = {
            "messages": [{"role": "user", "content": self.message()}],
            "max_tokens": chance.randrange(1, 24),
            "temperature": chance.choice([0.0, 0.7, 1.0]),
            "top_k": chance.choice([0, 5]),
            "stop": chance.choice([(), (), ("e",), ("self", "\n\n")]),
            "seed": chance.getrandbits(40),
            "logprobs": chance.random() < 0.3,
            "stream": leave is not None or chance.random() < 0.5,
            "n": n,
        }
        self.done["streamed" if body["stream"] else "whole"] += 1
        heard = await self.wire.chat(body, n, leave)
        self.done["left in the answer"] += not heard.whole
        self.asked.append(Asked(body, n, heard))

    async def leave_in_the_prompt(self) -> None:
        """Send something long and go away before it is read, or at any time after."""
        stream = self.chance.random() < 0.5
        content = (
            f"{self.chance.getrandbits(32):x}"
            f" {'import json as j ' * self.chance.randrange(50, 800)}"
        )
        body = {
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 30,
            "stream": stream,
            "logit_bias": {},
        }
        try:
            await asyncio.wait_for(self.wire.chat(body), self.chance.uniform(0.005, 0.3))
        except TimeoutError:
            self.done["left in the prompt"] += 1

    def begin(self) -> Talk:
        talk = Talk(f"talk-{self.number}-{self.chance.getrandbits(40):x}")
        self.talks.append(talk)
        return talk

    async def say(self) -> None:
        """Say something in a session, an old one or a new one, and now and then leave in the
        answer."""
        chance = self.chance
        talk = chance.choice(self.talks) if self.talks and chance.random() < 0.75 else self.begin()
        if len(talk.said) >= MOST_TURNS:
            talk = self.begin()
        leave = chance.choice([None, None, None, chance.randrange(1, 10)])
        sampling = {
            "seed": chance.getrandbits(40),
            "max_tokens": chance.randrange(1, 16),
            "temperature": chance.choice([0.0, 1.0]),
        }
        stream = leave is not None or chance.random() < 0.7
        said = Said(self.message(10).strip(), sampling)
        talk.said.append(said)
        body = {
            "messages": [{"role": "user", "content": said.message}],
            "session_id": talk.name,
            "stream": stream,
            **sampling,
        }
        try:
            heard = await self.wire.chat(body, leave=leave)
        except Broken as broken:
            if broken.args:
                said.heard = broken.args[0].texts[0]
            raise
        said.heard, said.whole = heard.texts[0], heard.whole
        talk.made = talk.made or heard.whole
        self.done["turns"] += 1
        self.done["left in the answer"] += not heard.whole

    async def fork(self) -> None:
        """Go on from a session in a second one."""
        talk = self.chance.choice(self.talks)
        if not talk.made or len(talk.said) >= MOST_TURNS:
            return
        name = f"{talk.name}-{self.chance.getrandbits(20):x}"
        forked = talk.fork(name)
        self.talks.append(forked)
        try:
            await self.wire.ask("POST", f"/v1/sessions/{talk.name}/fork", {"name": name})
        except Broken:
            # It may not be there.
            forked.said = [Said(s.message, s.sampling, s.heard) for s in forked.said]
            raise
        forked.made = True
        self.done["forks"] += 1

    async def rewind(self) -> None:
        """Undo the last thing that was said, where it is certain what that is."""
        talk = self.chance.choice(self.talks)
        if talk.said and talk.said[-1].whole:
            await self.wire.ask("POST", f"/v1/sessions/{talk.name}/rewind", {"turns": 1})
            talk.said.pop()
            self.done["rewinds"] += 1
