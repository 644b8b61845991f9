"""A step that was launched and has not been looked at, and the memory it is told and tells by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from griffin.engine.row import Row
from griffin.model.decode_step import Draw

# What a step is told, a value a row, in the order in which it lies; then four places a row, and how
# many rows are live.
_TOLD = {
    "given": torch.int64,
    "source": torch.int64,
    "uniform": torch.float64,
    "top_p": torch.float64,
    "min_p": torch.float64,
    "temperature": torch.float32,
    "repetition": torch.float32,
    "presence": torch.float32,
    "frequency": torch.float32,
    "top_k": torch.int32,
}
_PLACES = 4
TABLES = 32  # rows that may have counts, biases or masks on the device at a time


class StepMemory:
    """What host and device tell each other in a step: one copy there, one back.

    rows: the most there are. vocab_size, tables: ids, and rows that may have counts, biases or
    masks of their own, in tables on the device that stay where they are. In `masks` there is room
    for one more of each row before them, that of its constraint, which goes up with a step.
    `tokens` is what a step reads from: tokens that the last step drew, then those that are given,
    which lie side by side.
    """

    def __init__(self, rows: int, vocab_size: int, tables: int, device: torch.device | str) -> None:
        self.rows = rows
        self._device = torch.device(device)
        self._pins = self._device.type == "cuda"
        told = sum(dtype.itemsize for dtype in _TOLD.values()) * rows + (4 * _PLACES * rows) + 8
        drawn = rows * (8 + 4 + 4)
        words = -(-vocab_size // 32)
        room = 4 * words * (rows + 2 * tables)
        # Masks begin where a kernel reads 16 bytes at a time.
        before = drawn + told + -(drawn + told) % 16
        memory = torch.zeros(before + room, dtype=torch.uint8, device=device)
        self._back, self._sent = memory[:drawn], memory[drawn:]
        self._told, self._forms = self._sent[:told], before - drawn
        self.logprob, self.fault, self.token = _drawn(self._back, rows)
        self.tokens = memory[8 * rows : 8 * rows + 2 * 8 * rows].view(torch.int64)
        self.told = _parts(self._told, rows)
        self.live = self._told[-8:-4].view(torch.int32)
        # By turns: a step's values are written while the last one's may be on their way.
        self._up = [self._host(self._forms + 4 * words * rows) for _ in "ab"]
        self._down = [self._host(drawn) for _ in "ab"]
        self._turn = 0
        self.counts = torch.zeros(tables, vocab_size, dtype=torch.int32, device=device)
        self.bias = torch.zeros(tables, vocab_size, device=device)
        self.masks = memory[before:].view(torch.int32).view(-1, words)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(t.nbytes for t in (self._sent, self._back, self.counts, self.bias))

    def draw(self, rows: int) -> Draw:
        """Return how the first `rows` rows choose, as it lies on the device."""
        named = {name: self.told[name][:rows] for name in _TOLD if name not in ("given", "source")}
        places = self.told["places"][: _PLACES * rows].view(_PLACES, rows)
        tables = {"counts": self.counts, "bias": self.bias, "masks": self.masks}
        return Draw(**named, places=places, **tables)

    def tell(
        self,
        values: dict[str, list[Any]],
        places: Sequence[Sequence[int]],
        forms: Sequence[Tensor] = (),
    ) -> None:
        """Send a step's values up: `values` by name and `places` by kind, as long as a bucket, and
        under "live" how many rows are. forms: the first masks."""
        self._turn = 1 - self._turn
        up = self._up[self._turn]
        host, masks = up[: len(self._told)], up[self._forms :].view(torch.int32)
        parts = _parts(host, self.rows)
        size = self.masks.shape[1]
        for place, bits in enumerate(forms):
            masks[place * size : (place + 1) * size] = bits
        for name, dtype in _TOLD.items():
            parts[name][: len(values[name])] = torch.tensor(values[name], dtype=dtype)
        flat = [place for kind in places for place in kind]
        parts["places"][: len(flat)] = torch.tensor(flat, dtype=torch.int32)
        host[-8:-4].view(torch.int32)[0] = int(values["live"][0])
        end = self._forms + 4 * size * len(forms) if forms else len(host)
        self._sent[:end].copy_(up[:end], non_blocking=True)

    def fetch(self) -> Fetched:
        """Begin to bring back what the step that was launched last draws."""
        host = self._down[self._turn]
        host.copy_(self._back, non_blocking=True)
        event = None
        if self._pins:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._device))
        return Fetched(host, event, self.rows)

    def host_copy(self, tensor: Tensor) -> Tensor:
        """Begin to copy a tensor to the host; it is there when what was fetched next is."""
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pins)
        return host.copy_(tensor, non_blocking=True)

    def _host(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8, pin_memory=self._pins)


class Fetched:
    """What a step drew, on its way to the host."""

    def __init__(self, host: Tensor, event: torch.cuda.Event | None, rows: int) -> None:
        self._host, self._event, self._rows = host, event, rows

    def wait(self) -> tuple[list[int], list[float], list[int]]:
        """Return each row's token, its log-probability, and what is wrong with the row."""
        if self._event is not None:
            self._event.synchronize()
        logprob, fault, token = _drawn(self._host, self._rows)
        return token.tolist(), logprob.tolist(), fault.tolist()


@dataclass
class Flight:
    """A step on its way.

    rows:     in the order of the slots when it was launched; `bucket` places were there.
    uniforms: of each row. drawn: what comes back.
    logits:   on the host, of rows whose token is chosen there.
    torn:     what constraints raised when they were asked for this step.
    dropped:  rows that went back: what the step drew for them counts for nothing.
    """

    rows: list[Row]
    bucket: int
    uniforms: list[float]
    drawn: Fetched
    logits: dict[Row, Tensor] = field(default_factory=dict)
    torn: dict[Row, Exception] = field(default_factory=dict)
    dropped: set[Row] = field(default_factory=set)


def _parts(memory: Tensor, rows: int) -> dict[str, Tensor]:
    found, at = {}, 0
    for name, dtype in _TOLD.items():
        size = dtype.itemsize * rows
        found[name] = memory[at : at + size].view(dtype)
        at += size
    found["places"] = memory[at : at + 4 * _PLACES * rows].view(torch.int32)
    return found


def _drawn(memory: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities, faults and tokens."""
    logprob = memory[: 4 * rows].view(torch.float32)
    fault = memory[4 * rows : 8 * rows].view(torch.int32)
    return logprob, fault, memory[8 * rows :].view(torch.int64)
