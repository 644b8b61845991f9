"""The command where what surrounds it is odd: closed streams, folders that nobody may write, a
Python that lacks a part, text that means harm to the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from griffin.conversation import Conversation
from tests.support.terminal import Terminal


@pytest.mark.thorough
def test_a_stream_that_was_closed_is_an_empty_one(folder):
    """As cron and some daemons start programs, and a shell by `<&-`."""
    main = "import sys; sys.argv[0] = 'griffin'; from griffin.cli import main; main()"
    asked = f'"{sys.executable}" -c "{main}" generate --model "{folder}" --threads 1 -n 3'
    for line, code, told in (
        (f"{asked} x >&-", 0, ""),
        (f"{asked} <&-", 2, "the prompt is empty"),
    ):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
        assert done.returncode == code and told in done.stderr, (line, done.stderr)
        assert "Traceback" not in done.stderr and not done.stdout


@pytest.mark.thorough
def test_an_encoding_that_lacks_a_letter_ends_nothing(run, folder):
    talk = ("chat", "--model", folder, "--no-persist", "-n", 2)
    typed = run(*talk, stdin=b"a\xffb\n/history\n")
    assert typed.exit_code == 0 and "> a\ufffdb" in typed.stdout
    main = "import sys; sys.argv[0] = 'griffin'; from griffin.cli import main; main()"
    asked = [sys.executable, "-c", main, "generate", "--model", folder, "-n", "3", "--echo", "Ω!"]
    own = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run(asked, capture_output=True, env=own, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(b"?!"), done.stderr


def test_a_folder_that_cannot_be_written_names_the_ways_out(run, folder, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/proc/none")
    for asked in (("chat", "--model", "no/such"), ("serve", "--model", "no/such", "--port", 0)):
        told = run(*asked, stdin="")
        assert told.exit_code == 1 and "--no-persist" in told.stderr, told.stderr
    talk = run("chat", "--model", folder, "--no-persist", "-n", 2, stdin="x\n")
    assert talk.exit_code == 0 and talk.stdout.strip()
    assert "no conversation can be kept" in run("state", "ls").stderr


def test_a_terminal_gets_no_control_character_of_what_somebody_wrote(
    run, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("NO_COLOR", "1")
    evil, shown = "\x1b]0;owned\x07\x9b2J", "\u241b]0;owned\u2407\ufffd2J"
    kept = ("--store", tmp_path / "s")
    run("chat", "--model", folder, *kept, "--session", "one", "-n", 2, stdin=f"say {evil}\n")
    assert evil in run("state", "show", "one", *kept).stdout  # a pipe gets what was written
    monkeypatch.setattr(Conversation, "say", lambda *_: (piece for piece in [evil]))
    chat = ("chat", "--model", folder, *kept, "--session", "one")
    lines = ("/history", "/branches", "/show 1", "hello", "/bye")
    for command, typed, count in (
        (("state", "show", "one", *kept), (), 1),
        (("state", "ls", *kept), (), 1),
        (chat, lines, len(lines)),  # what was said last is shown at the beginning
    ):
        with Terminal(*command) as terminal:
            for line in typed:
                terminal.type(line)
            assert terminal.wait() == 0
        assert terminal.output.count(shown) == count, terminal.output
        assert evil[:8] not in terminal.output and "\x9b" not in terminal.output


def test_a_python_without_readline_has_a_chat(folder, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    without = ("chat", "--model", folder, "--no-persist", "-n", 2)
    with Terminal(*without, first=lambda: sys.modules.update(readline=None)) as terminal:
        terminal.expect(">>> ")
        terminal.type("hello")
        terminal.expect("cut after")
        terminal.type("/bye")
        assert terminal.wait() == 0


def test_a_history_that_cannot_be_read_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "s").mkdir(mode=0o700)
    (tmp_path / "s" / "history").touch(mode=0o600)
    chat = ("chat", "--model", folder, "--store", tmp_path / "s", "--session", "one")
    with Terminal(*chat, first=_unreadable) as terminal:
        terminal.expect("cannot be read: it is torn")
        terminal.expect(">>> ")
        terminal.type("/bye")
        assert terminal.wait() == 0


def _unreadable() -> None:
    import readline

    def read(path: object) -> None:
        raise OSError("it is torn")

    readline.read_history_file = read
