"""The processes that train one model together, and the few things they must agree on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from griffin.train.stopping import Interrupted

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# A rank that says nothing for so long is taken for gone; one that has died is noticed at once.
_PATIENCE = timedelta(minutes=10)
# What the others wait for while the first one encodes documents may take hours.
_LONG = timedelta(days=30)
_WELL, _STOPPED, _FAILED = range(3)


class RankGoneError(RuntimeError):
    """Another rank has died, or does not answer."""


class WriterFailedError(RuntimeError):
    """The writer could not do its part; it has said why."""


@dataclass(frozen=True)
class Ranks:
    """Say which of `world` processes this one is. One process is the default, and costs nothing.

    mesh: the ranks as torch's FSDP wants them, None for one process. The first rank, the writer,
    has the folder's lock, its log, and what is said to people.
    together: how many neighbouring ranks read the same rows, each a piece of every row; grid has
    these neighbours beside each other in its second dimension, None where each reads its own rows.
    """

    rank: int = 0
    world: int = 1
    mesh: DeviceMesh | None = None
    patient: Any = None
    together: int = 1
    grid: DeviceMesh | None = None

    @classmethod
    def join(cls, device: str = "cpu") -> Ranks:
        """Meet the processes that `torchrun` has started, or be alone where it has not.

        device: "cpu", where gloo carries tensors, or "cuda", where NCCL does, each rank on a GPU of
        its own. Raises RankGoneError if the others do not come.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls()
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh

        backend, kind = "gloo", torch.device(device).type
        if kind == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"
        with _noticed():
            distributed.init_process_group(backend, timeout=_PATIENCE)
            mesh = init_device_mesh(kind, (world,))
            patient = distributed.new_group(backend="gloo", timeout=_LONG)
        return cls(distributed.get_rank(), world, mesh, patient)

    @property
    def is_writer(self) -> bool:
        return self.rank == 0

    def check_together(self, ranks: int) -> None:
        """Raise ValueError if so many neighbours cannot read the same rows: there are not as many,
        or some would be left over."""
        if self.world % ranks:
            raise ValueError(
                f"train.sequence_ranks is {ranks}: start a multiple of {ranks} ranks (torchrun"
                f" --nproc-per-node {ranks} ...), here there are {self.world}"
            )

    def reading_together(self, ranks: int) -> Ranks:
        """Return these ranks, so many neighbours of which read the same rows; all must call it.

        ValueError as of `check_together`.
        """
        self.check_together(ranks)
        if ranks == 1:
            return self
        assert self.mesh is not None  # as several ranks have
        from torch.distributed.device_mesh import init_device_mesh

        with _noticed():
            grid = init_device_mesh(self.mesh.device_type, (self.world // ranks, ranks))
        return dataclasses.replace(self, together=ranks, grid=grid)

    @property
    def readers(self) -> int:
        """How many ranks, or groups of them that read together, have rows of their own."""
        return self.world // self.together

    @property
    def reader(self) -> int:
        """Which of the readers this rank is, or belongs to."""
        return self.rank // self.together

    def share(self, rows: int) -> slice:
        """Return which of a micro-batch's rows are this reader's, in order, equally many for each.

        ValueError if they cannot be.
        """
        each, rest = divmod(rows, self.readers)
        if rest:
            split = f" (train.sequence_ranks {self.together} together)" * (self.together > 1)
            raise ValueError(
                f"train.rows is {rows}, which {self.world} ranks{split} cannot share equally; make"
                f" it a multiple of {self.readers}, or start another number of ranks"
            )
        return slice(self.reader * each, (self.reader + 1) * each)

    def sum(self, *values: float) -> list[float]:
        """Return the sums of numbers over all ranks, the same on each; all must call it.

        They are added in float64, so whole numbers up to 2^53 are exact.
        """
        if self.mesh is None:
            return list(values)
        from torch import distributed

        numbers = torch.tensor(values, dtype=torch.float64)
        with _noticed():
            distributed.all_reduce(numbers)
        return numbers.tolist()

    def any(self, flag: bool) -> bool:
        """Say whether a flag is set on any rank; all must call it."""
        return flag if self.mesh is None else self.sum(flag)[0] > 0

    @contextlib.contextmanager
    def writer_first(self) -> Iterator[None]:
        """Let the writer into the block at once, and the others when it has left it.

        Its part may take hours. If it fails, it raises its own error and the others
        WriterFailedError; if it was stopped, all raise `Interrupted`.
        """
        if self.mesh is None:
            yield
        elif self.is_writer:
            try:
                yield
            except BaseException as error:
                with contextlib.suppress(RankGoneError):
                    self._tell(_STOPPED if isinstance(error, Interrupted) else _FAILED)
                raise
            self._tell(_WELL)
        else:
            said = self._tell(_WELL)
            if said == _STOPPED:
                raise Interrupted
            if said == _FAILED:
                raise WriterFailedError("the first rank could not do its part, and said why")
            yield

    def _tell(self, what: int) -> int:
        """Return what the writer says. Signals are looked at while waiting for it."""
        from torch import distributed

        said = torch.tensor(what)
        with _noticed():
            work: Any = distributed.broadcast(said, 0, group=self.patient, async_op=True)
            while not work.is_completed():
                time.sleep(0.02)
            work.wait()
        return int(said)

    def close(self) -> None:
        """Part from the others, at the end of a run that all have ended."""
        if self.mesh is not None:
            from torch import distributed

            distributed.destroy_process_group()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what torch raises in the block when another rank dies into RankGoneError."""
        if self.mesh is None:
            yield
        else:
            with _noticed():
                yield


@contextlib.contextmanager
def _noticed() -> Iterator[None]:
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        # gloo's are plain RuntimeErrors that name its source file.
        if not (isinstance(error, DistError) or "gloo" in str(error)):
            raise
        what = re.sub(r"^(\[[^]]*\] )*", "", str(error).splitlines()[0])
        raise RankGoneError(
            "another rank has died or does not answer; the same command goes on from the newest"
            f" checkpoint ({what[:100]})"
        ) from error
