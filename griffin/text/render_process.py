"""The process that renders chat templates (`griffin.text.renderer`), as its parent sees it."""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

_PATIENCE = 30.0  # seconds of the clock for one answer, however busy the machine is
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "TZ")


class TemplateError(ValueError):
    """The checkpoint's chat template refuses the conversation, is broken, or went over a limit."""


class TemplateRefusal(TemplateError):
    """The template itself called raise_exception."""


class RenderProcess:
    """A process that renders templates, one at a time: started when asked, and again when one
    ended it.

    Threads may share it. It ends with the last object that holds it, and with its parent.
    """

    _shared: "weakref.ref[RenderProcess] | None" = None
    _sharing = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._parent = 0
        self._finalizer: weakref.finalize[..., Any] | None = None

    @classmethod
    def shared(cls) -> "RenderProcess":
        """Return the one that all templates of this process use."""
        with cls._sharing:
            held = cls._shared() if cls._shared is not None else None
            if held is None:
                held = cls()
                cls._shared = weakref.ref(held)
            return held

    def ask(self, asked: dict[str, Any], most: int) -> str:
        """Send a request, as `renderer.main` reads it; return what the template wrote.

        most: bytes an answer may have. Raises TemplateRefusal for the template's own refusal,
        TemplateError for all else that goes wrong.
        """
        body = json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with self._lock:
            process = self._ready()
            try:
                self._send(process, body)
            except BrokenPipeError:  # it was ended from outside since
                self._stop()
                process = self._ready()
                self._send(process, body)
            deadline = time.monotonic() + _PATIENCE
            try:
                head = self._read(process, 5, deadline)
                size = int.from_bytes(head[1:], "big")
                if size > most:
                    raise TemplateError("the checkpoint's chat template wrote too much")
                text = self._read(process, size, deadline).decode("utf-8", "surrogatepass")
            except EOFError:
                code = process.wait()
                self._stop()
                did = (
                    f"took more than {asked['seconds']:.1f} s"
                    if code == -signal.SIGPROF
                    else f"ended the process that renders it ({code})"
                )
                raise TemplateError(f"the checkpoint's chat template {did}") from None
            except BaseException:  # what is left of the answer would be taken for the next one
                self._stop()
                raise
            if head[:1].islower():
                self._stop()
        letter = head[:1].upper()
        if letter == b"R":
            raise TemplateRefusal(
                f"the checkpoint's chat template refuses the conversation: {text}"
            )
        if letter != b"T":
            raise TemplateError(f"the checkpoint's chat template {text}")
        return text

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._parent != os.getpid():  # a fork has its parent's
            try:
                self._process = _start()
            except OSError as error:
                raise TemplateError(
                    f"no process can be started to render the chat template ({error.strerror})"
                ) from error
            self._parent = os.getpid()
            self._finalizer = weakref.finalize(self, _end, self._process, self._parent)
        return self._process

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = None

    def _send(self, process: subprocess.Popen[bytes], body: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(len(body).to_bytes(4, "big") + body)
        process.stdin.flush()

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        read = bytearray()
        while len(read) < size:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TemplateError(
                    f"the checkpoint's chat template is not rendered within {_PATIENCE} s"
                )
            part = os.read(process.stdout.fileno(), min(size - len(read), 1 << 20))
            if not part:
                raise EOFError
            read += part
        return bytes(read)


def _start() -> subprocess.Popen[bytes]:
    folders: list[str] = []
    for name in ("jinja2", "markupsafe"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None, "installed with this package"
        folders.append(str(Path(spec.origin).parents[1]))
    # Of the surroundings only what the interpreter needs to start: no keys, no paths.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("renderer.py")), *folders],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        start_new_session=True,  # a Ctrl-C is its parent's
    )


def _end(process: subprocess.Popen[bytes], parent: int) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()
    if parent == os.getpid():
        process.kill()
        process.wait()
