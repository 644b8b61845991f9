"""The program that runs what a model wrote, in a process of its own; `written_code.py` starts it.

It reads JSON from its standard input: the program, seconds of processor time, bytes of memory, and
a word that it prints if the program ran to its end. Nothing of the package is imported.
"""

import ctypes
import json
import os
import resource
import sys
from contextlib import suppress

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # of Linux's unshare


def main() -> None:
    """Run the program within its limits, without a network where the system allows that."""
    told = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # the pipes are not the program's
        os.dup2(nothing, stream)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NET)
    for what, most in (
        (resource.RLIMIT_CPU, told["seconds"]),
        (resource.RLIMIT_AS, told["memory"]),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))
    exec(compile(told["program"], "answer", "exec"), {"__name__": "__main__"})
    answers.write(told["word"])
    answers.flush()


if __name__ == "__main__":
    main()
