"""`griffin chat` killed in the middle of answers, again and again: what was finished is there, to
the bit."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin
from griffin.conversation import Conversation, begin, fingerprint_of
from griffin.engine import Engine
from griffin.llm import LLM
from griffin.ops import native
from griffin.sessions import Store
from tests.support.terminal import PATIENCE, become

SHORT = 6  # tokens of an answer that comes to its end
NAMES = ("kitchen", "cellar", "attic")


class Chat:
    """`griffin chat` in a process of its own, its input and output pipes."""

    def __init__(self, *arguments: object) -> None:
        self.said = b""
        read, self._input = os.pipe()
        self._output, write = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.dup2(read, 0)
            os.dup2(write, 1)
            os.close(self._input)
            os.close(self._output)
            become(("chat", *arguments))
        os.close(read)
        os.close(write)

    def type(self, *lines: str) -> None:
        os.write(self._input, "".join(f"{line}\n" for line in lines).encode())

    def wait_for(self, count: int) -> None:
        """Wait until it has said so many bytes."""
        end = time.monotonic() + PATIENCE
        while len(self.said) < count:
            ready = select.select([self._output], [], [], max(0.0, end - time.monotonic()))[0]
            piece = os.read(self._output, 1 << 16) if ready else b""
            assert piece, f"{count} bytes did not come, only {self.said!r}"
            self.said += piece

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._input)
        os.close(self._output)


def same(talk: Conversation, store: Store, name: str) -> bool:
    """Whether a kept conversation stands where one in memory does, to the bit."""
    with store.open(name, fingerprint_of(talk.llm)) as session:
        found, own = session.resume(), talk.context
        if found.state is None or own.state is None:
            return found.state is own.state and found.pending == own.pending
        pairs = zip(found.state.layers, own.state.layers, strict=True)
        return (
            found.pending == own.pending
            and found.tokens == own.tokens
            and torch.equal(found.state.pos, own.state.pos)
            and all(torch.equal(x, y) for a, b in pairs for x, y in zip(a, b, strict=True))
        )


def kill_often(folder: Path, home: Path, times: int, drafts: int = 0) -> None:
    """Say something to the end, then something longer, and kill; in a third of the cycles already
    before.

    Each conversation has a twin in this process that nobody ever interrupts, and without drafts.
    """
    chance = random.Random(times)
    llm = griffin.load(folder, device="cpu", quantize="int8" if drafts else None)
    sampling = {"temperature": 0, "max_tokens": SHORT, "draft": 0}
    twins = {name: Conversation(llm, begin(llm, None), sampling=dict(sampling)) for name in NAMES}
    options = ("--model", folder, "--store", home, "--temperature", 0, "--max-tokens", SHORT)
    far = 5
    if drafts:
        options += ("--quantize", "int8", "--draft", drafts)
        far = 200  # by then it goes in circles, and is read ahead
        assert goes_in_circles(llm, drafts)
    for cycle in range(times):
        name = chance.choice(NAMES)
        twin, message = twins[name], f"message {cycle}"
        chat = Chat(*options, "--session", name)
        # At any moment of a short answer, its keeping included.
        if early := chance.random() < 1 / 3:
            chat.type(message)
            chat.wait_for(chance.randint(1, 3))
            time.sleep(chance.uniform(0, 0.03))
        else:
            expected = "".join(twin.say(message)) + "\n"
            chat.type(message, "/set max_tokens 100000", "and a long one")
            more = chance.randint(5, far)
            chat.wait_for(len(expected.encode()) + len("max_tokens = 100000\n") + more)
            assert chat.said.startswith(expected.encode()), "it went on from where the twin is"
            time.sleep(chance.uniform(0, 0.03))
        chat.kill()
        with Store(home) as store:
            assert store.check() == ()
            if early and len(store.turns(name)) > len(twin.session.turns()):
                for _ in twin.say(message):  # it was finished
                    pass
            begun = {each for each in NAMES if twins[each].tokens}
            assert begun <= {info.name for info in store.list()}, "none is lost"
            assert len(store.turns(name)) == len(twin.session.turns()) and same(twin, store, name)
    with Store(home) as store:
        assert all(same(twin, store, name) for name, twin in twins.items() if twin.tokens)


def goes_in_circles(llm: LLM, drafts: int) -> bool:
    """Whether most of a long answer is read ahead."""
    engine = Engine(llm.model, 1)
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 100, "draft": drafts}
    ticket = engine.submit(llm.request("and a long one", **asked))
    while not ticket.done:
        engine.step()
    return ticket.accepted > 50


@pytest.mark.thorough
def test_killed_a_few_times(folder, tmp_path):
    kill_often(folder, tmp_path / "store", 5)


@pytest.mark.slow
def test_killed_a_hundred_times(folder, tmp_path):
    kill_often(folder, tmp_path / "store", 100)


@pytest.mark.slow
@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
def test_killed_in_the_middle_of_what_was_read_ahead(folder, tmp_path):
    kill_often(folder, tmp_path / "store", 30, drafts=7)
