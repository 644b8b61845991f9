"""The states of a prefix cache that lie on the model's device too: those that began a prompt
last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch

from griffin.engine.prefix_tree import PrefixCheckpoint
from griffin.model import State

STATES = 8  # that a server keeps there: 138 MB at 2B


class DevicePart:
    """At most so many whole states on a device; a part of nothing on the CPU.

    What is found there costs no copy from the host. What is not is copied from pinned memory on a
    stream of its own, so that running rows go on meanwhile, and stays as one of the last.
    """

    def __init__(self, device: torch.device | str, states: int = STATES) -> None:
        self._device = torch.device(device)
        self._most = states
        self._held: OrderedDict[PrefixCheckpoint, State] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(state.nbytes + state.pos.nbytes for state in self._held.values())

    def state(
        self, checkpoint: PrefixCheckpoint, restored: Callable[[torch.device], State]
    ) -> State:
        """Return the state of a checkpoint on the device; nobody changes it, for it is kept.

        restored: puts it together on a device (`griffin.engine.crossing.restore`).
        """
        if self._device.type == "cpu":
            return restored(self._device)
        found = self._held.pop(checkpoint, None)
        if found is None:
            found = restored(self._device)
        if self._most:
            self._held[checkpoint] = found
        if len(self._held) > self._most:
            self._held.popitem(last=False)
        return found

    def forget(self, checkpoint: PrefixCheckpoint) -> None:
        """Give the memory of a checkpoint back, which the cache has no more."""
        self._held.pop(checkpoint, None)
