"""The program that runs a reward function, in a process of its own; `WorkerProcess` starts it.

It reads pickles from its standard input: first where the function is, then a prompt, an answer and
a row at a time. Each is answered by a frame (4 bytes of length, JSON). Nothing of the package is
imported, so it starts at once. What the function prints goes to standard error.

Memory is what the process may add, in calls, to the address space it had before them; the system
refuses more (on Linux; elsewhere it is not limited). Time is its parent's to look at.
"""

import errno
import fcntl
import inspect
import json
import math
import os
import pickle
import random
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_LONGEST = 4000  # characters of a traceback that are told: its end
_MOST = 1e6  # a larger reward, or less than its negative, makes a step's loss no number
_NAME = "reward_function"  # of the module that the file becomes


class _Unfit(Exception):
    """The file has no function that can be used."""


class Function:
    """A user's function; `row` is handed to it if it has a parameter of that name."""

    def __init__(self, path: str, text: bytes, name: str) -> None:
        module = ModuleType(_NAME)
        module.__file__ = path
        sys.modules[_NAME] = module  # classes of the file look for it there
        sys.path.insert(0, str(Path(path).parent))  # what lies beside it can be imported
        exec(_compiled(path, text), module.__dict__)
        self.call = module.__dict__.get(name)
        if not callable(self.call):
            own = [
                key
                for key, value in vars(module).items()
                if inspect.isfunction(value) and value.__module__ == _NAME
            ]
            raise _Unfit(f"has no function {name!r}; its functions: {', '.join(own) or 'none'}")
        if inspect.iscoroutinefunction(self.call) or inspect.isgeneratorfunction(self.call):
            raise _Unfit(f"{name} is a coroutine or a generator; expected one that returns a float")
        self.takes_row = _takes_row(self.call, name)

    def __call__(self, prompt: str, answer: str, row: dict[str, Any]) -> Any:
        assert self.call is not None
        # Whichever process it is, and after what.
        random.seed(f"{len(prompt)} {prompt}{answer}".encode("utf-8", "surrogatepass"))
        return self.call(prompt, answer, row=row) if self.takes_row else self.call(prompt, answer)


def _compiled(path: str, text: bytes) -> CodeType:
    return compile(text, path, "exec", dont_inherit=True)


def _takes_row(function: Callable[..., Any], name: str) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a function in C: it says nothing
        return False
    takes_row = "row" in signature.parameters
    try:
        signature.bind("", "", **({"row": {}} if takes_row else {}))
    except TypeError:
        raise _Unfit(
            f"{name}{signature} cannot be called; expected {name}(prompt, answer) or"
            f" {name}(prompt, answer, row)"
        ) from None
    return takes_row


def outcome(function: Callable[..., Any], asked: tuple[Any, ...]) -> dict[str, Any]:
    """Call the function; return {"value": ...}, or a "reason" and a "detail"."""
    try:
        return _number(function(*asked))
    # A reward is a program: it can fail with whatever a program can, SystemExit too.
    except BaseException as error:
        _lift_limit()  # so that there is memory to say what was wrong
        return {"reason": "memory" if _is_memory(error) else "raised", "detail": _told(error)}


def _number(given: Any) -> dict[str, Any]:
    if not isinstance(given, (str, bytes, bytearray)):
        with suppress(TypeError, ValueError, OverflowError):
            value = float(given)
            if abs(value) <= _MOST:
                return {"value": value}
            if math.isfinite(value):
                detail = (
                    f"it returned {_shown(given)}; rewards lie between {-_MOST:g} and {_MOST:g}"
                )
                return {"reason": "no number", "detail": detail}
    return {"reason": "no number", "detail": f"it returned {_shown(given)}"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _is_memory(error: BaseException) -> bool:
    """Return whether it is about memory, also as torch and the system say it."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _told(error: BaseException) -> str:
    """Return the traceback without what is ours."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        return "".join(traceback.format_exception(type(error), error, trace)).strip()[-_LONGEST:]
    except BaseException:  # an error that cannot be shown
        return type(error).__name__


def _lift_limit() -> None:
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit(address_space: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    size = address_space if most == resource.RLIM_INFINITY else min(address_space, most)
    resource.setrlimit(resource.RLIMIT_AS, (size, most))


def _address_space() -> int | None:
    """Return the bytes of the address space; None but on Linux."""
    try:
        pages = Path("/proc/self/statm").read_bytes().split()[0]
    except OSError:
        return None
    return int(pages) * resource.getpagesize()


class _Bound:
    """While it is entered, the end of the parent ends this process and its children.

    The system sends a signal when something happens to the pipe that the parent holds; it does so
    also where a call keeps Python's other threads from running.
    """

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # which ends a process
        with suppress(OSError):  # where a pipe has no owner, what waits for the parent is left
            fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())

    def __enter__(self) -> None:
        fcntl.fcntl(self.pipe, fcntl.F_SETFL, self.flags | os.O_ASYNC)
        poll = select.poll()
        poll.register(self.pipe, 0)
        if poll.poll(0):  # it had ended before
            os.killpg(0, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        fcntl.fcntl(self.pipe, fcntl.F_SETFL, self.flags)


def main() -> None:
    """Answer until standard input ends."""
    source, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:  # the pipes are not the function's
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    bound = _Bound(source.fileno())
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def tell(answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        answers.write(len(body).to_bytes(4, "big") + body)
        answers.flush()

    path, text, name, memory = pickle.load(source)
    try:
        with bound:
            function = Function(path, text, name)
    except _Unfit as error:
        tell({"refused": str(error)})
        return
    except BaseException as error:
        tell({"refused": f"fails when it is imported: {_told(error)}"})
        return
    tell({"ready": True})
    idle = _address_space()
    while True:
        try:
            asked = pickle.load(source)
        except (EOFError, pickle.UnpicklingError):  # the parent has ended, perhaps within a word
            return
        with bound:
            if idle is not None:
                _limit(idle + memory)
            answer = outcome(function, asked)
            _lift_limit()
        tell(answer)


if __name__ == "__main__":
    main()
