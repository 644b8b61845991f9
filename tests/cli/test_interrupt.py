"""Ctrl-C in a terminal while something long is read: one press is enough, nothing is lost or half
there."""

from __future__ import annotations

import itertools
import os
import select
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from griffin.model import Griffin
from griffin.sessions import Store
from tests.support.terminal import PATIENCE, Terminal

OPTIONS = ("--temperature", 0, "--max-tokens", 5)


@pytest.fixture(autouse=True)
def _plain(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def book(tmp_path) -> Path:
    path = tmp_path / "book"
    path.write_text("All of it was read before anybody could say stop.\n" * 1000)
    return path


def reading_slowly(free: int = 0) -> None:
    """Let every call that reads a piece of a prompt say so and wait for Ctrl-C, whoever handles it;
    but for the first `free`."""
    trunk, calls = Griffin.trunk, itertools.count()
    heard, told = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)

    def slow(self, tokens, *arguments, **options):
        if tokens.shape[1] > 200:
            os.write(2, b"READING\n")
            if next(calls) >= free:
                try:
                    select.select([heard], [], [], PATIENCE)
                finally:  # it may have raised KeyboardInterrupt here
                    with suppress(BlockingIOError):
                        os.read(heard, 100)
        return trunk(self, tokens, *arguments, **options)

    Griffin.trunk = slow


def test_chat_stops_reading_and_stays_where_it_was(folder, book, tmp_path):
    with Terminal("chat", "--model", folder, *OPTIONS, first=reading_slowly) as terminal:
        terminal.expect(">>> ")
        terminal.type("one")
        terminal.expect("one\n(.*\n)*>>> ")
        terminal.type("/tokens")
        (tokens,) = terminal.expect(r"([\d,]+) tokens in the conversation").groups()
        terminal.type(f"/file {book}")
        terminal.expect("go before your next message")
        terminal.type("what?")
        terminal.expect("READING")
        terminal.press_ctrl_c()
        terminal.expect("stopped before an answer began; the conversation stays where it was")
        terminal.expect(">>> ")
        terminal.type("/tokens")
        assert terminal.expect(r"([\d,]+) tokens in the conversation")[1] == tokens
        terminal.type("/regen")  # the same answer again, on a branch
        terminal.expect("/regen\n(.*\n)*>>> ")
        terminal.type("again?")  # with the book, which is still there
        terminal.expect("READING")
        terminal.press_ctrl_c()
        terminal.expect("stopped before an answer began")
        terminal.type("/bye")
        assert terminal.wait() == 0 and "Traceback" not in terminal.output
    with Store(tmp_path / "data" / "griffin" / "sessions") as store:
        (info,) = store.list()
        assert (info.turns, info.head, f"{info.tokens:,}") == (2, 2, tokens) and store.check() == ()


def test_regen_that_is_stopped_leaves_the_old_answer(folder, book, tmp_path):
    long = tmp_path / "message"
    long.write_text(book.read_text()[:1000])
    with Terminal(
        "chat", "--model", folder, *OPTIONS, "--no-persist", first=partial(reading_slowly, 1)
    ) as terminal:
        terminal.expect(">>> ")
        terminal.type(f"/file {long}")
        terminal.expect("go before your next message")
        terminal.type("one")
        # Typed too early, the next line would wait in the terminal, which forgets it at Ctrl-C.
        terminal.expect("one\n(.*\n)*READING\n(.*\n)*>>> ")
        terminal.type("/regen")
        terminal.expect("/regen\n(.*\n)*READING")
        terminal.press_ctrl_c()
        terminal.expect("stopped before an answer began")
        terminal.type("/branches")
        terminal.expect("you are at turn 1\n")
        terminal.type("/bye")
        assert terminal.wait() == 0


@pytest.mark.parametrize("verb", ["generate", "ask", "watch", "build"])
def test_one_press_ends_a_verb_that_reads(folder, book, tmp_path, verb):
    out = tmp_path / "out"
    out.mkdir()
    arguments = {
        "generate": ("generate", "--file", book),
        "ask": ("ask", "--file", book, "-q", "what?", "-q", "why?"),
        "watch": ("watch", book, "--ask", "what?", "--every", 10_000),
        "build": ("state", "build", "--from", book, "-o", out / "book.state"),
    }[verb]
    with Terminal(*arguments, "--model", folder, first=reading_slowly) as terminal:
        terminal.expect("READING")
        terminal.press_ctrl_c()
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.output and "Aborted" not in terminal.output
        assert terminal.output.count("READING") <= 2, "the piece at hand, no more"
        assert ("lines, " in terminal.output) == (verb == "watch")
    assert not list(out.iterdir())
