"""The processes that train one model together, and the few things they must agree on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# A rank that says nothing for so long is taken for gone; one that has died is noticed at once.
_PATIENCE = timedelta(minutes=10)
# What the others wait for while the first one encodes documents may take hours.
_LONG = timedelta(days=30)


class RankGoneError(RuntimeError):
    """Another rank has died, or does not answer."""


class WriterFailedError(RuntimeError):
    """The writer could not do its part; it has said why."""


@dataclass(frozen=True)
class Ranks:
    """Say which of `world` processes this one is. One process is the default, and costs nothing.

    mesh: the ranks as torch's FSDP wants them, None for one process. The first rank, the writer,
    has the folder's lock, its log, and what is said to people.
    """

    rank: int = 0
    world: int = 1
    mesh: DeviceMesh | None = None
    patient: Any = None

    @classmethod
    def join(cls, device: torch.device) -> Ranks:
        """Meet the processes that `torchrun` has started, or be alone where it has not.

        device: its type decides how tensors travel: gloo from the CPU, NCCL between GPUs. Raises
        RankGoneError if the others do not come.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls()
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh

        backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
        with _noticed():
            distributed.init_process_group(backend, timeout=_PATIENCE)
            mesh = init_device_mesh(device.type, (world,))
            patient = distributed.new_group(backend="gloo", timeout=_LONG)
        return cls(distributed.get_rank(), world, mesh, patient)

    @property
    def is_writer(self) -> bool:
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Return which of a micro-batch's rows are this rank's, in order, equally many for each.

        ValueError if they cannot be.
        """
        each, rest = divmod(rows, self.world)
        if rest:
            raise ValueError(
                f"train.rows is {rows}, which {self.world} ranks cannot share equally; make it a"
                f" multiple of {self.world}, or start another number of ranks"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

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
        WriterFailedError.
        """
        if self.mesh is None:
            yield
        elif self.is_writer:
            try:
                yield
            except BaseException:
                with contextlib.suppress(RankGoneError):
                    self._tell(False)
                raise
            self._tell(True)
        else:
            if not self._tell(False):
                raise WriterFailedError("the first rank could not begin, and said why")
            yield

    def _tell(self, well: bool) -> bool:
        """Return what the writer says. Signals are looked at while waiting for it."""
        from torch import distributed

        said = torch.tensor(well)
        with _noticed():
            work: Any = distributed.broadcast(said, 0, group=self.patient, async_op=True)
            while not work.is_completed():
                time.sleep(0.02)
            work.wait()
        return bool(said)

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
        raise RankGoneError(
            "another rank has died or does not answer; the same command goes on from the newest"
            f" checkpoint ({str(error).splitlines()[0][:200]})"
        ) from error
