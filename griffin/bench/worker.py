"""The process a program runs in: JSON requests on standard input, answers on a pipe, a line each.

    python -m griffin.bench.worker

What a library prints goes to standard error, so answers cannot be torn. The process ends when its
input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy

from griffin.bench.memory import forget_peak, resident
from griffin.bench.program import Options, Program

LOWEST_ID = 10  # below are the ids that mean something to programs that look


class WorkerTasks:
    """Carry out requests on a program or the machine: each names a method and its arguments."""

    def __init__(self) -> None:
        self._program: Program | None = None
        self._kernels: Any = None
        self._reader: Any = None
        self._rows: Any = None
        self._talk: Any = None

    @property
    def program(self) -> Program:
        assert self._program is not None, "start comes first"
        return self._program

    def start(
        self, program: str, where: str, packages: list[str], **options: Any
    ) -> dict[str, Any]:
        """Load a program; return what it is, how long that took, and the memory it is in.

        program, where, packages: as a Contender has them. options: the fields of Options.
        """
        module, _, name = where.partition(":")
        begun = time.perf_counter()
        try:
            kind: Callable[[Options], Program] = getattr(import_module(module), name)
            imported = time.perf_counter()
            self._program = kind(Options(**options))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("griffin", module.partition(".")[0]):
                raise  # a file of its own
            raise ModuleNotFoundError(
                f"{program} cannot run here: {error}; install it with"
                f" `pip install {' '.join(packages)}`"
            ) from error
        return {
            "model": self.program.model,
            "format": self.program.format,
            "resumes": self.program.resumes,
            "weight_bytes": self.program.weight_bytes,
            "import_seconds": imported - begun,
            "load_seconds": time.perf_counter() - imported,
            **resident(),
        }

    def config(self) -> dict[str, Any]:
        """Return the config of a Griffin program, and the shapes of its matrices."""
        from griffin.bench.work import matrix_shapes

        config = self.program.config  # pyright: ignore[reportAttributeAccessIssue]
        return {"config": config.to_dict(), "shapes": matrix_shapes(config)}

    def read(
        self, length: int, batch: int = 1, fresh: bool = True, capacity: int = 0, seed: int = 0
    ) -> dict[str, float]:
        """Read `length` random tokens a sequence; return the seconds it took."""
        ids = numpy.random.default_rng(seed).integers(
            LOWEST_ID, self.program.vocabulary(), (batch, length)
        )
        if fresh:
            self.program.forget(batch, max(capacity, length))
        begun = time.perf_counter()
        self.program.read(ids)
        return {"seconds": time.perf_counter() - begun}

    def reserve(self, capacity: int) -> None:
        """Make room for more tokens of the sequences at hand, where a program needs to be told."""
        reserve = getattr(self.program, "reserve", None)
        if reserve is not None:
            reserve(capacity)

    def decode(self, count: int) -> dict[str, Any]:
        """Continue every sequence by `count` tokens; return the seconds of each step."""
        times: list[float] = []
        for _ in range(count):
            begun = time.perf_counter()
            self.program.step()
            times.append(time.perf_counter() - begun)
        return {"seconds": times}

    def decode_work(self, context: int, batch: int) -> dict[str, float]:
        return self.program.decode_work(context, batch)

    def prefill_work(self, length: int, start: int = 0) -> dict[str, float]:
        return self.program.prefill_work(length, start)

    def resume(self) -> dict[str, float]:
        """Save, load and continue the state of a Griffin program."""
        return self.program.resume()  # pyright: ignore[reportAttributeAccessIssue]

    def memory(self, forget: bool = False) -> dict[str, int]:
        """Return the process's memory; `forget`: its peak begins anew."""
        found = resident()
        if forget:
            forget_peak()
        return found

    def read_rate(self, threads: int, nbytes: int, seconds: float) -> float:
        from griffin.bench.rates import Reader

        if self._reader is None or self._reader.nbytes != nbytes:
            self._reader = Reader(nbytes)
        return self._reader.rate(threads, seconds)

    def matrix_rate(
        self,
        shapes: list[tuple[int, int, int]],
        rows: int,
        dtype: str,
        threads: int,
        seconds: float,
    ) -> float:
        import torch

        from griffin.bench.rates import matrix_rate

        torch.set_num_threads(threads)
        return matrix_rate(shapes, rows, dtype, seconds)

    def kernel_names(self, lengths: list[int]) -> list[str]:
        """Return the kernels that can be timed with the loaded model."""
        from griffin.bench.kernels import Kernels

        self._kernels = Kernels(self.program.griffin, lengths)  # pyright: ignore[reportAttributeAccessIssue]
        return list(self._kernels.names())

    def kernel(self, name: str, seconds: float) -> dict[str, Any]:
        """Time one kernel, and the copy of as many bytes beside it."""
        return self._kernels.measure(name, seconds)

    def rows(self, slots: int) -> None:
        """Open an engine on a Griffin program, its rows where the plain loop stands."""
        from griffin.bench.rows import Rows

        self._rows = Rows(cast(Any, self.program), slots)

    def rows_decode(self, count: int, rows: int) -> dict[str, float]:
        """Let some rows of the engine take `count` tokens each; return the seconds."""
        return {"seconds": self._rows.decode(count, rows)}

    def talk(self, folder: str) -> None:
        """Open a folder for a long conversation."""
        from griffin.bench.talk import Talk

        self._talk = Talk(cast(Any, self.program), Path(folder))

    def talk_begin(self, tokens: int, read: int) -> dict[str, float]:
        """Make the conversation; return the "tokens" that were read and the "seconds" it took."""
        return self._talk.begin(tokens, read)

    def talk_by_cache(self, count: int, seed: int) -> dict[str, float]:
        seconds, token = self._talk.by_cache(count, seed)
        return {"seconds": seconds, "token": token}

    def talk_by_session(self, count: int, seed: int) -> dict[str, float]:
        seconds, token = self._talk.by_session(count, seed)
        return {"seconds": seconds, "token": token}

    def talk_restarted(self, folder: str, count: int, seed: int) -> dict[str, float]:
        """Go on with the conversation in a folder, of which this process knows nothing yet."""
        from griffin.bench.talk import Talk

        begun = time.perf_counter()
        self._talk = Talk(cast(Any, self.program), Path(folder))
        _, token = self._talk.by_session(count, seed)
        return {"seconds": time.perf_counter() - begun, "token": token}


def answer_requests(runner: object) -> None:
    """Carry out what standard input asks, by an object's methods, until there is no more."""
    # Ctrl-C ends a worker at once; its parent tells the user.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": getattr(runner, request["call"])(**request["arguments"])}
        except Exception as error:  # told to the parent, which raises it again
            import traceback

            answer = {
                "error": str(error) or type(error).__name__,
                "kind": type(error).__name__,
                "trace": traceback.format_exc(),
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    answer_requests(WorkerTasks())
