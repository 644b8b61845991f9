"""One script, driven through every way there is to talk, says the same in each of them.

The terminal's Conversation, `session_id`, `previous_response_id`, and whole conversations where
their texts encode to the ids that were chosen. With tools, which the terminal has none of, the
other three.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from griffin.answer import Result
from griffin.conversation.turns import split_exchange
from griffin.llm import LLM
from griffin.server.conversations.asked import words_of
from griffin.server.protocol import Tool
from griffin.sessions import Store, Turn
from tests.support.live_server import Live, serving
from tests.support.terminal_talk import Answer, Terminal, Words

SYSTEMS = ("Be brief.", "You are an owl.\n\nOwls say little.", "")
TOOLS = (
    [],
    [Tool("look", "Look at a thing.", {"type": "object"}, strict=False)],
    [Tool("sing", "", {"type": "object"}, strict=False), Tool("fly", "Up.", {}, strict=False)],
)
MESSAGES = ("one", "two\nlines", "> quoted", "und drei, mit Ä", "  space around  ", "x" * 60, "🦉")


class Script:
    """The same script in every way at once.

    words:      that hold now.
    responses:  number of a turn to the response that says the same.
    read_under: number of a turn to the words it was read under.
    """

    def __init__(self, llm: LLM, folder: Path, seed: int, tools: bool) -> None:
        self.llm, self.folder, self.tools = llm, folder, tools
        self.random = random.Random(seed)
        self.terminal = Terminal(llm, folder / "terminal")
        self.served = ExitStack()
        self.serve()
        self.sampling: dict[str, Any] = {}
        # told: the session was told of them. known: no state file made it forget them.
        self.words, self.told, self.known = Words(), True, True
        self.responses: dict[int, str] = {}
        self.read_under: dict[int, Words] = {}
        self.counts: Counter[str] = Counter()
        alone = [c for c in "QZXVYWKJ" if len(llm.tokenizer.encode(c, bos=False)) == 1]
        self.letters = [llm.tokenizer.encode(c, bos=False)[0] for c in alone]
        self.sample()

    def serve(self) -> None:
        self.live: Live = self.served.enter_context(serving(self.llm, self.folder / "served"))
        self.http = self.served.enter_context(self.live.http())

    def close(self) -> None:
        self.served.close()
        self.terminal.talk.close()

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def name(self) -> str:
        return self.terminal.name

    @property
    def line(self) -> list[Turn]:
        return self.terminal.session.turns()

    @property
    def head(self) -> int | None:
        head = self.terminal.session.head
        return head.number if head else None

    # What may happen between two messages.

    def sample(self) -> None:
        """Choose how tokens are chosen, and how answers end."""
        chance = self.random
        bias: dict[int, float] = {}
        if self.tools or chance.random() < 0.8:
            # Letters that no merge takes: their text has only these ids.
            bias = dict.fromkeys(self.letters, 60.0)
        for stop in (self.llm.tokenizer.eos_id, self.llm.tokenizer.end_of_turn_id):
            if stop is not None and chance.random() < 0.4:
                bias[stop] = 60.0 if bias else 5.0
        self.sampling = {
            "max_tokens": chance.randint(1, 5),
            "seed": chance.randrange(1000),
            "temperature": chance.choice((0, 1.0)),
            "logit_bias": bias,
        }
        if chance.random() < 0.4:
            self.sampling["repetition_penalty"] = chance.choice((1.3, 3.0, 0.7))
        self.terminal.sample(dict(self.sampling))

    def instruct(self) -> None:
        tools = self.random.choice(TOOLS) if self.tools else []
        self.words = Words(self.random.choice(SYSTEMS), list(tools))
        self.told = False

    def undo(self) -> None:
        """Go back, by as many turns as one likes."""
        if line := self.line:
            self.rewind(self.terminal.talk.undo(self.random.randint(1, min(4, len(line)))))

    def redo(self) -> None:
        if self.terminal.session._tip != getattr(self.terminal.session.head, "key", None):
            self.rewind(self.terminal.talk.redo())

    def goto(self) -> None:
        if tree := self.terminal.session.tree():
            turn = self.random.choice([turn for turn in tree if turn.restorable])
            self.rewind(self.terminal.talk.goto(turn.number))

    def rewind(self, turn: Turn | None) -> None:
        if turn is None:
            line = self.post(f"/v1/sessions/{self.name}/rewind", turns=self.depth())
            assert line["head"] is None
        else:
            self.post(f"/v1/sessions/{self.name}/rewind", to=turn.number)

    def depth(self) -> int:
        turns = self.http.get(f"/v1/sessions/{self.name}/turns").json()["data"]
        return sum(turn["current"] for turn in turns)

    def restart(self) -> None:
        self.terminal.restart()
        self.served.close()
        self.served = ExitStack()
        self.serve()

    def fork(self) -> None:
        if before := self.line:
            old, new = self.name, f"fork-{self.counts['fork']}"
            self.terminal.fork(new)
            self.post(f"/v1/sessions/{old}/fork", name=new)
            self.renumber(before)

    def carry(self) -> None:
        """Go on from a state file, which does not know the words it was read under."""
        if before := self.line:
            old, new = self.name, f"carried-{self.counts['carry']}"
            self.words, self.told = self.read_under[before[-1].number], True
            self.known = False
            self.terminal.carry(new)
            self.post("/v1/states", name=new, session=old)
            self.post(f"/v1/states/{new}/fork", name=new)
            self.renumber(before)

    def renumber(self, before: list[Turn]) -> None:
        """Find the turns of a line in the copy of it that the session is now."""
        pairs = [(a.number, b.number) for a, b in zip(before, self.line, strict=True)]
        self.responses = {new: self.responses[old] for old, new in pairs}
        self.read_under = {new: self.read_under[old] for old, new in pairs}

    # A message.

    def say(self) -> None:
        """Say something in every way, and compare what is answered."""
        message, line = self.random.choice(MESSAGES), self.line
        edited = len(line) > 1 and self.random.random() < 0.2
        if edited:  # by a program that sends everything; a terminal goes back for it
            line = line[: self.random.randint(1, len(line) - 1)]
            self.terminal.talk.goto(line[-1].number)
        talk = [
            {"role": role, "content": text}
            for turn in line
            for role, text in zip(
                ("user", "assistant"), split_exchange(turn.text or ""), strict=True
            )
        ]
        talk.append({"role": "user", "content": message})
        choice = self.random.choice(("auto", "none"))
        tell = not self.told or not (self.known or line) or self.random.random() < 0.2
        if tell:
            self.terminal.words(self.words)
            self.told = self.known = True
        answer = self.terminal.say(message)
        whole = talk if edited or (line and self.random.random() < 0.1) else talk[-1:]
        assert self.by_session(whole, choice, tell).agrees(answer)
        id, other = self.by_response(line[-1].number if line else None, message, choice)
        assert other.agrees(answer)
        assert self.result.ids and self.shown(id).chain == self.terminal.session.chain
        if self.canonical(talk):
            self.counts["plain"] += 1
            assert self.plainly(talk, choice).agrees(answer)
        self.note(line, id)

    def note(self, before: list[Turn], id: str) -> None:
        """Note what the new turns are: the answer, and copies of those before it."""
        self.counts["read again"] += [t.number for t in before] != [
            turn.number for turn in self.line[:-1]
        ]
        ids = [*(self.responses[turn.number] for turn in before), id]
        for turn, response in zip(self.line, ids, strict=True):
            self.responses.setdefault(turn.number, response)
            self.read_under[turn.number] = self.words

    @property
    def result(self) -> Result:
        result = self.terminal.talk.result
        assert result is not None
        return result

    def fields(self, choice: str) -> dict[str, Any]:
        bias = {str(id): value for id, value in self.sampling["logit_bias"].items()}
        return (
            self.sampling | {"logit_bias": bias} | ({"tool_choice": choice} if self.tools else {})
        )

    def by_session(self, talk: list[dict[str, str]], choice: str, tell: bool) -> Answer:
        body = self.fields(choice) | {"session_id": self.name, "logprobs": True}
        if tell:
            talk = [{"role": "system", "content": self.words.system}, *talk]
            body["tools"] = [{"type": "function", "function": asdict(t)} for t in self.words.tools]
        return chatted(self.post("/v1/chat/completions", messages=talk, **body))

    def by_response(self, after: int | None, message: str, choice: str) -> tuple[str, Answer]:
        body = self.fields(choice)
        body["max_output_tokens"] = body.pop("max_tokens")
        if after is not None:
            body["previous_response_id"] = self.responses[after]
        made = self.post(
            "/v1/responses",
            input=message,
            instructions=self.words.system,
            tools=[{"type": "function", **asdict(tool)} for tool in self.words.tools],
            include=["message.output_text.logprobs"],
            **body,
        )
        [part] = made["output"][0]["content"]
        return made["id"], Answer(part["text"], scores(part["logprobs"]))

    def plainly(self, talk: list[dict[str, str]], choice: str) -> Answer:
        body = self.fields(choice) | {"logprobs": True}
        body["tools"] = [{"type": "function", "function": asdict(t)} for t in self.words.tools]
        first = [{"role": "system", "content": self.words.system}]
        return chatted(self.post("/v1/chat/completions", messages=[*first, *talk], **body))

    def canonical(self, talk: list[dict[str, str]]) -> bool:
        """Return whether the texts encode to the ids that the last answer followed."""
        words = words_of(self.words.tools, self.words.system)
        first = [{"role": "system", "content": words}] if words else []
        ids = self.terminal.session.ids()
        return self.llm.chat_format.ids([*first, *talk]) == list(ids[: -len(self.result.ids)])

    # What is kept.

    @property
    def store(self) -> Store:
        """The server's."""
        assert self.live.service.store is not None
        return self.live.service.store

    def shown(self, id: str) -> Turn:
        store = self.store.within("responses")
        head = store.show(id).head
        return next(turn for turn in store.turns(id) if turn.number == head)

    def check_stores(self) -> None:
        """The session is, turn for turn, the one that the terminal has."""
        store = self.store
        mine, theirs = self.terminal.session.tree(), store.turns(self.name)
        assert list(map(plain, mine)) == list(map(plain, theirs))
        assert store.show(self.name).head == self.head
        assert store.check() == () == self.terminal.store.check()


def plain(turn: Turn) -> tuple[Any, ...]:
    """Return what a turn is, wherever it is kept."""
    same = (turn.number, turn.parent, turn.role, turn.text, turn.ids, turn.tokens, turn.chain)
    return (*same, turn.pending, turn.kept, turn.restorable)


def scores(tokens: list[dict[str, Any]]) -> list[tuple[bytes, float]]:
    return [(bytes(token["bytes"]), token["logprob"]) for token in tokens]


def chatted(made: dict[str, Any]) -> Answer:
    [choice] = made["choices"]
    assert choice["logprobs"] is not None, made
    return Answer(choice["message"]["content"], scores(choice["logprobs"]["content"]))


STEPS = {
    "sample": 20,
    "instruct": 12,
    "undo": 12,
    "redo": 6,
    "goto": 6,
    "fork": 4,
    "carry": 4,
    "restart": 2,
}


def run(llm: LLM, folder: Path, turns: int, seed: int, tools: bool) -> Counter[str]:
    """Drive a script of so many turns; return how often what happened in it."""
    script = Script(llm, folder, seed, tools)
    try:
        for number in range(turns):
            if script.random.random() < 0.5:
                [step] = script.random.choices(list(STEPS), list(STEPS.values()))
                script.counts[step] += 1
                getattr(script, step)()
            script.say()
            if number % 20 == 19:
                script.check_stores()
        script.check_stores()
        return script.counts
    finally:
        script.close()


@pytest.mark.thorough
@pytest.mark.parametrize("tools", [False, True])
def test_every_way_of_talking_says_the_same(llm: LLM, tmp_path: Path, tools: bool) -> None:
    counts = run(llm, tmp_path, 60, 1, tools)
    assert counts["plain"] >= 10 and counts["read again"] >= 3, counts


@pytest.mark.slow
@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_long_scripts(llm: LLM, tmp_path: Path, seed: int, tools: bool) -> None:
    counts = run(llm, tmp_path, 200, seed + 100, tools)
    assert set(STEPS) <= set(counts) and counts["plain"] and counts["read again"], counts
