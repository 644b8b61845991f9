"""A run: programs and the machine's probe, each in its own process, asked one at a time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from griffin.bench.machine import buffer_bytes
from griffin.bench.measurement import Measurement, Report, measured
from griffin.bench.process import Stopped, Worker
from griffin.bench.program import OURS, Contender
from griffin.bench.rates import SERVING

# The type of a format's weights; the smaller ones are 8-bit integers.
_TYPES = {"float32": "float32", "bf16": "bfloat16", "bf16-packed": "bfloat16"}
_TRIED = 64  # rows of the products by which the fastest is found: a slow one takes its time


@dataclass(kw_only=True)
class Plan:
    """What a suite needs to know.

    model:    the checkpoint. formats: of its weights, each a program of its own.
    against:  other programs, which take turns with ours.
    chunk:    tokens of a prompt a call reads. rounds, tokens: of each program, and steps in a
              round.
    buffer:   bytes of the buffer that reads are measured on, None for more than the caches hold.
    probe:    seconds of a probe.
    patience: seconds each of the others gets for one answer before it is given up.
    """

    model: str
    report: Report
    formats: Sequence[str] = ("stored",)
    threads: int = 1
    against: Sequence[Contender] = ()
    chunk: int = 512
    rounds: int = 3
    tokens: int = 16
    buffer: int | None = None
    probe: float = 0.4
    patience: float = 600.0


@dataclass
class RunningProgram:
    """A program that is running."""

    worker: Worker
    program: str
    facts: dict[str, Any]
    patience: float | None
    samples: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)  # the machine's read rate around each sample

    def ask(self, call: str, **arguments: Any) -> Any:
        return self.worker.ask(call, **arguments)


class Bench:
    """Programs and the machine's probe, in processes of their own, for a `with` block."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.runners: list[RunningProgram] = []
        self.shapes: list[tuple[int, int, int]] = []
        self._config: dict[str, Any] | None = None
        self._stack = ExitStack()
        self._machine: Worker | None = None
        self._rates: dict[str, list[float]] = {}
        self._tried: dict[str, float] = {}
        self._buffer = plan.buffer or buffer_bytes()

    def __enter__(self) -> Bench:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()
        self.plan.report.rates = {
            name: statistics.median(found) for name, found in self._rates.items()
        }

    def _start(self) -> None:
        plan = self.plan
        self._machine = self._stack.enter_context(Worker("the machine's probe"))
        for format in plan.formats:
            self._add(OURS, format)
        known = self.runners[0].ask("config")
        self._config, self.shapes = known["config"], [tuple(shape) for shape in known["shapes"]]
        ours = [runner.facts["format"] for runner in self.runners]
        for other in plan.against:
            for format in other.formats_beside(ours):
                self._add(other, format)

    def _add(self, program: Contender, format: str) -> None:
        plan = self.plan
        model = plan.model if program.weights is None else program.weights(format)
        worker = self._stack.enter_context(Worker(program.name, root=program.root))
        facts = worker.ask(
            "start",
            program=program.name,
            where=program.where,
            packages=program.packages,
            model=model,
            format=format,
            threads=plan.threads,
            chunk=plan.chunk,
            config=self._config,
        )
        patience = None if program is OURS else plan.patience
        self.runners.append(RunningProgram(worker, program.name, facts, patience))

    def attempt(self, runner: RunningProgram, call: str, **arguments: Any) -> Any:
        """Ask a program; out of patience, drop it, say so in the report and return None."""
        try:
            return runner.worker.ask(call, runner.patience, **arguments)
        except Stopped as stopped:
            told = ", ".join(f"{key} {value}" for key, value in arguments.items())
            self.runners.remove(runner)
            self.plan.report.notes.append(f"{stopped} ({told})")
            return None

    def read_rate(self, threads: int | None = None) -> float:
        """Measure the machine's sequential read, bytes a second."""
        assert self._machine is not None
        plan = self.plan
        threads = plan.threads if threads is None else threads
        rate = self._machine.ask(
            "read_rate", threads=threads, nbytes=self._buffer, seconds=plan.probe
        )
        self._rates.setdefault(f"read, {threads} threads", []).append(rate)
        return rate

    def matrix_rate(self, rows: int, dtype: str) -> float:
        """Measure torch's matrix product at the model's shapes, operations a second."""
        assert self._machine is not None
        plan = self.plan
        rate = self._machine.ask(
            "matrix_rate",
            shapes=self.shapes,
            rows=rows,
            dtype=dtype,
            threads=plan.threads,
            seconds=plan.probe,
        )
        self._rates.setdefault(f"{dtype} product, {rows} rows", []).append(rate)
        return rate

    def products(self, rows: int, also: Sequence[str] = ()) -> None:
        """Measure the matrix products that bound the programs.

        also: types that are tried as well, for the report.
        """
        formats = {runner.facts["format"] for runner in self.runners}
        types = {dtype for format in formats for dtype in products_of(format)} | set(also)
        for dtype in sorted(types - set(self._tried)):
            self._tried[dtype] = self.matrix_rate(min(rows, _TRIED), dtype)
        for dtype in sorted({self.fastest(format) for format in formats}):
            self.matrix_rate(rows, dtype)

    def fastest(self, format: str) -> str:
        """Return the type in which this machine multiplies a format's weights fastest."""
        return max(products_of(format), key=self._tried.__getitem__)

    def rate(self, name: str) -> float | None:
        """Return the median of what was measured so far under a name, None if nothing was."""
        found = self._rates.get(name)
        return statistics.median(found) if found else None

    def place(self, runner: RunningProgram, batch: int, context: int) -> dict[str, Any]:
        return {
            "program": runner.program,
            "model": runner.facts["model"],
            "format": runner.facts["format"],
            "threads": self.plan.threads,
            "batch": batch,
            "context": context,
        }

    def finish(
        self,
        what: str,
        runner: RunningProgram,
        batch: int,
        context: int,
        work: dict[str, float],
        rows: int | None = None,
    ) -> Measurement:
        """Put a runner's samples together with the rates of the run, and forget the samples.

        rows: of the matrix product that bounds it; None where the bytes alone do.
        """
        read = self.rate(f"read, {self.plan.threads} threads")
        # What it was while this program ran: on a shared machine it comes and goes.
        if runner.reads:
            read = statistics.median(runner.reads)
        product = None
        if rows is not None:
            dtype = self.fastest(runner.facts["format"])
            product = self.rate(f"{dtype} product, {rows} rows")
        samples, runner.samples, runner.reads = runner.samples, [], []
        memory = runner.ask("memory", forget=True)
        place = self.place(runner, batch, context)
        found = measured(what, place, samples, work, read, product, memory)
        self.plan.report.measurements.append(found)
        return found


def products_of(format: str) -> tuple[str, ...]:
    """Return the types of the matrix products that serve a format's weights, its own first."""
    return SERVING[_TYPES.get(format, "int8")]
