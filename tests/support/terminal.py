"""The command in a forked process: there in milliseconds, torch and all, and as mortal as a real
one."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from griffin.cli import main

PATIENCE = 60.0  # seconds; a test that waits so long has failed
# A terminal is told that pasted lines belong together: nothing that anybody sees.
_PASTING = re.compile("\x1b\\[\\?2004[hl]\r?")


def become(arguments: tuple[object, ...], first: Callable[[], object] | None = None) -> NoReturn:
    """Be `griffin` with these arguments in a process that was just forked, on the streams 0, 1 and
    2.

    first: done before anything else.
    """
    status = 70
    try:
        # pytest has others in their place.
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
        if first is not None:
            first()
        main([str(argument) for argument in arguments], prog_name="griffin")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Terminal:
    """`griffin` on a terminal of its own, typed at and read. Use it in a `with` block.

    output: all that has been seen, what was typed included.
    """

    def __init__(self, *arguments: object, first: Callable[[], object] | None = None) -> None:
        self.output = ""
        self._read = 0  # up to where `expect` has looked
        self._pid, self._handle = pty.fork()
        if not self._pid:
            become(arguments, first)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._handle)

    def type(self, line: str) -> None:
        os.write(self._handle, f"{line}\n".encode())

    def press_ctrl_c(self) -> None:
        """Send the character that makes the terminal send SIGINT."""
        os.write(self._handle, b"\x03")

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until a pattern comes after what was expected before; AssertionError if it never
        does."""
        end = time.monotonic() + PATIENCE
        while (found := re.compile(pattern).search(self.output, self._read)) is None:
            assert self._more(end), (
                f"{pattern!r} did not come; the terminal shows {self.output[-2000:]!r}"
            )
        self._read = found.end()
        return found

    def wait(self) -> int:
        """Wait for the end of the program and return its exit code."""
        end = time.monotonic() + PATIENCE
        while self._more(end):
            pass
        assert time.monotonic() < end, (
            f"it does not end; the terminal shows {self.output[-2000:]!r}"
        )
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def _more(self, end: float) -> bool:
        if not select.select([self._handle], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            piece = os.read(self._handle, 1 << 16)
        except OSError:  # Linux's way to say that nobody holds the other side any more
            return False
        seen = piece.decode(errors="replace").replace("\r\n", "\n")
        self.output += _PASTING.sub("", seen)
        return bool(piece)
