"""A conversation with the bundled model, killed in the middle: `python -m tools.demo`.

`griffin chat` on a terminal of its own, typed at: three questions; a fourth, in the answer to which
the process is killed; and the same command again, which goes on from the file. The conversation is
kept in a folder that is thrown away. Half a minute at most; Linux and macOS.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import tempfile
import time

from griffin.checkpoints.model_names import talker

# To a model that answers: of topics that none of its training was about (mini/split.py).
QUESTIONS = ("What is 43 + 49?", 'Spell "ambulance".', "What kind of thing is a windbreak?")
LONGEST = "Define supply."
# To one that has read nothing but Python, and continues it.
BEGINNINGS = ("import os, sys", "def read(self, size):", "for line in lines:")
LONG_BEGINNING = "class Error(Exception):"
_WAIT = 60.0  # seconds until something has to come
_PROMPT = ">>> "
# A terminal is told that pasted lines belong together: nothing that anybody sees.
_PASTING = re.compile("\x1b\\[\\?2004[hl]\r?")


class Terminal:
    """A command on a terminal of its own. What it shows is shown on standard output, too.

    shown: all of that.
    """

    def __init__(self, *command: str) -> None:
        self.shown = ""
        self._pid, self._handle = pty.fork()
        if not self._pid:
            plain = {"TERM": "dumb", "NO_COLOR": "1"}  # no codes that move or colour
            os.execvpe(command[0], command, os.environ | plain)

    def read(self, until: str | None = None, count: int = 0) -> None:
        """Read on until all ends with a text, if one is given, and at least so many characters.

        Raises SystemExit if that does not come in a minute.
        """
        seen, held, end = "", "", time.monotonic() + _WAIT
        while len(seen) < count or not seen.endswith(until or ""):
            ready = select.select([self._handle], [], [], max(0.0, end - time.monotonic()))[0]
            try:
                piece = os.read(self._handle, 1 << 12) if ready else b""
            except OSError:  # Linux's way to say that the other side is closed
                piece = b""
            if not piece:
                raise SystemExit("\ngriffin chat said nothing more")
            text = held + piece.decode("utf-8", errors="replace")
            whole = text.rfind("\x1b", max(0, len(text) - 7))  # a code that has come in part waits
            text, held = (text, "") if whole < 0 else (text[:whole], text[whole:])
            text = _PASTING.sub("", text).replace("\r\n", "\n")
            sys.stdout.write(text)
            sys.stdout.flush()
            seen += text
        self.shown += seen

    def type(self, line: str) -> None:
        os.write(self._handle, f"{line}\n".encode())

    def kill(self) -> None:
        """End it as the system would: kill -9."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._handle)

    def leave(self) -> None:
        self.type("/bye")
        os.waitpid(self._pid, 0)
        os.close(self._handle)


def main(model: str = "") -> str:
    """Show it with a model, the bundled one where none is named; return what was shown."""
    model = model or talker()
    answers = model.endswith("-it")
    questions, longest = (QUESTIONS, LONGEST) if answers else (BEGINNINGS, LONG_BEGINNING)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="griffin-demo-") as home:
        options = ["--model", model, "--store", home, "--session", "demo"]
        options += ["--temperature", "0", "--max-tokens", "64"]
        if not answers:
            options += ["--frequency-penalty", "0.3"]
        command = (sys.executable, "-m", "griffin.cli", "chat", *options)
        print(f"$ griffin chat --model {model} --session demo", flush=True)
        first = Terminal(*command)
        first.read(_PROMPT)
        for question in questions:
            first.type(question)
            first.read(f"\n{_PROMPT}")
        first.type(longest)
        first.read(count=len(longest) + 8)
        first.kill()
        print("\n[kill -9, in the middle of an answer]", flush=True)
        print(f"$ griffin chat --model {model} --session demo", flush=True)
        second = Terminal(*command)
        second.read(_PROMPT)
        second.type(longest)
        second.read(f"\n{_PROMPT}")
        second.leave()
    seconds = time.monotonic() - begun
    print(f"\n{seconds:.1f} s; next: griffin chat, griffin serve, docs/quickstart.md")
    return first.shown + second.shown


if __name__ == "__main__":
    main()
