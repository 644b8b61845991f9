"""A toy run in processes of its own, killed at a chosen moment of what it does, not of the clock.

Moments are counted in what Python sees: files opened, renamed and removed (audit events), or calls
of functions. So a run can be killed in the middle of its preparation, a step, a save, the removal
of an old checkpoint, the export; and the same number is the same moment again.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch

from griffin.train.checkpoint import newest_step
from griffin.train.data import journal, source
from griffin.train.export import export
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import RankGoneError, Ranks, WriterFailedError
from griffin.tune.export import TunedRun, measure_before
from griffin.tune.export import export as export_tuned
from griffin.tune.methods import run_of
from tests.support.ranks import forking

Kind = Literal["files", "calls"]
GONE = 3  # how a rank ends when another one dies
_FILES = ("open", "os.", "shutil.")


class _Clock:
    """Count moments of one kind; end the process in the one that is asked for."""

    def __init__(self, kind: Kind, end: int | None) -> None:
        self._count, self._end, self.passed = count(1), end, 0
        if kind == "files":
            sys.addaudithook(self._event)
        else:
            sys.setprofile(self._call)

    def spare(self) -> None:
        """End the process no more."""
        self._end = None

    def _event(self, event: str, _: Any) -> None:
        if event.startswith(_FILES):
            self._tick()

    def _call(self, frame: Any, event: str, _: Any) -> None:
        if event == "call":
            self._tick()

    def _tick(self) -> None:
        self.passed = next(self._count)
        if self.passed == self._end:
            os.kill(os.getpid(), signal.SIGKILL)


def _work(
    rank: int,
    world: int,
    port: int,
    values: dict[str, Any],
    out: Path,
    kind: Kind,
    end: int | None,
    preparing: bool,
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        ranks = Ranks.join()
        clock = _Clock(kind, end)
        recipe, found = Recipe.from_dict(values), newest_step(out / "checkpoints")
        kind_of_run = Trainer if recipe.tune is None else run_of(recipe)
        # Blocks are small, and each is one to go on from.
        journal._EVERY, source._RECORDS = 0.0, 5
        with kind_of_run(recipe, out, Reporter(quiet=True), ranks=ranks) as ours:
            prepared = clock.passed
            if preparing:
                clock.spare()
            # All that was saved before is still there.
            assert ours.progress.step == found, (ours.progress.step, found)
            if isinstance(ours, TunedRun):
                measure_before(ours)
            ours.run()
            if isinstance(ours, TunedRun):
                export_tuned(ours)
            else:
                assert isinstance(ours, Trainer)
                export(ours)
        sys.setprofile(None)
        if ranks.is_writer:
            (out.parent / f"{out.name}.{kind}").write_text(f"{prepared} {clock.passed}")
        ranks.close()
    except (RankGoneError, WriterFailedError):
        os._exit(GONE)


def run(
    values: dict[str, Any],
    out: Path,
    kind: Kind,
    end: int | None,
    world: int = 1,
    *,
    preparing: bool = False,
) -> list[int]:
    """Run in `world` processes, of which the last is killed in moment `end`, with `preparing` only
    if that comes before its first step; return their exit codes."""
    context = forking()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes: list[BaseProcess] = []
    for rank in range(world):
        last = end if rank == world - 1 else None
        args = (rank, world, port, values, out, kind, last, preparing)
        processes.append(context.Process(target=_work, args=args))  # pyright: ignore
        processes[-1].start()
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "a rank does not end"
    return [process.exitcode or 0 for process in processes]


def moments(values: dict[str, Any], out: Path, kind: Kind, world: int = 1) -> tuple[int, int]:
    """Run to the end, and return how many moments its preparation, and all of it, has in the first
    process."""
    assert run(values, out, kind, None, world) == [0] * world
    prepared, whole = (out.parent / f"{out.name}.{kind}").read_text().split()
    return int(prepared), int(whole)
