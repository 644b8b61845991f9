"""Several tokens of each row in one call, and the way back to the state after any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin import ops
from griffin.model.config import GriffinConfig
from griffin.model.state import RecurrentState, State


class Trail:
    """What a call left behind to go back: the states after all tokens of a row but the last.

    lengths: tokens that the call read of each row. before: of each row, the tokens read before.
    With k a row's length less one, rows one after the other, and the recurrent and the attention
    layers each counted for themselves:
    inputs:  (layers, sum of k + W-2, E), what the convolution saw: W-2 tokens before the call and
             the first k of it; nothing for a row whose k is 0.
    h:       (layers, sum of k, E) float32, after each of the first k tokens.
    k, v:    (layers, sum of k, K, H), what the others' slots of the ring held before the call.
    """

    def __init__(
        self,
        config: GriffinConfig,
        lengths: Sequence[int],
        before: Sequence[int],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.lengths, self.before = tuple(lengths), tuple(before)
        self.config = config
        self.older = max(0, config.conv_width - 2)
        self.kept, self.seen = [0], [0]  # where a row's part begins; of `inputs`
        for length in lengths:
            self.kept.append(self.kept[-1] + length - 1)
            self.seen.append(self.seen[-1] + (length - 1 + self.older if length > 1 else 0))
        count, width = config.block_types.count("recurrent"), config.lru_width
        wide = torch.promote_types(dtype, torch.float32)
        self.inputs = torch.empty(count, self.seen[-1], width, dtype=dtype, device=device)
        self.h = torch.empty(count, self.kept[-1], width, dtype=wide, device=device)
        count = config.block_types.count("attention")
        ring = (count, self.kept[-1], config.num_kv_heads, config.head_dim)
        self.k, self.v = (torch.empty(ring, dtype=dtype, device=device) for _ in "kv")
        # How the native module goes back, where it wrote this: it copies to and from addresses.
        self.native: Callable[[list[int], list[int], int, int, int], None] | None = None

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.inputs, self.h, self.k, self.v))

    def addresses(self, row: int = 0) -> list[int]:
        """Return where the part of a row, and of those behind it, begins: two a layer."""
        pairs = (self.inputs, self.seen[row], self.h), (self.k, self.kept[row], self.v)
        ways = []
        for first, skipped, second in pairs:
            each = [t[:1, :1].numel() * t.itemsize for t in (first, second)]
            whole = [t[:1].numel() * t.itemsize for t in (first, second)]
            begin = (
                first.data_ptr() + skipped * each[0],
                second.data_ptr() + self.kept[row] * each[1],
            )
            ways.append([*begin, *whole])
        found: list[int] = []
        for kind in self.config.block_types:
            way = ways[kind == "attention"]
            found += way[:2]
            way[0] += way[2]
            way[1] += way[3]
        return found

    def go_back(self, state: State, row: int, read: int) -> None:
        """Give a row's state the content that it had after the call's first `read` tokens.

        state: that row's alone, as the call left it; its tensors are changed in place.
        """
        length, before = self.lengths[row], self.before[row]
        if not 1 <= read <= length:
            raise ValueError(f"read is {read}; the call read {length} tokens of row {row}")
        state.pos.fill_(before + read)
        if read == length:
            return
        if self.native is not None:
            own = [t.data_ptr() for layer in state.layers for t in layer]
            self.native(own, self.addresses(row), before, length, read)
            return
        first, seen = self.kept[row], self.seen[row] + read - 1
        recurrent = attention = 0
        slots = torch.arange(before + read, before + length, device=state.pos.device)
        slots = slots % self.config.attention_window_size
        for layer in state.layers:
            if isinstance(layer, RecurrentState):
                layer.conv[0].copy_(
                    self.inputs[recurrent, seen : seen + self.config.conv_width - 1]
                )
                layer.lru[0].copy_(self.h[recurrent, first + read - 1])
                recurrent += 1
            else:
                kept = slice(first + read - 1, first + length - 1)
                layer.k[0].index_copy_(0, slots, self.k[attention, kept])
                layer.v[0].index_copy_(0, slots, self.v[attention, kept])
                attention += 1


@dataclass(frozen=True)
class Step:
    """The tokens of a call that stand at one place of their rows.

    rows:     (A,) which rows have one. tokens: (A,) their places among the call's tokens.
    position: (A, 1) in their documents.
    kept:     (A,) where the trail keeps what they change; None for a call's first tokens.
    window:   of attention; rope: of these tokens. None where no layer attends.
    """

    rows: Tensor
    tokens: Tensor
    position: Tensor
    kept: Tensor | None
    window: ops.Window | None
    rope: tuple[Tensor, Tensor] | None


def steps_of(trail: Trail, dtype: torch.dtype, device: torch.device) -> Iterator[Step]:
    """Return a call's tokens, the first of all rows, then the second, and so on."""
    config, lengths = trail.config, trail.lengths
    begin = [sum(lengths[:row]) for row in range(len(lengths))]
    for step in range(max(lengths)):
        rows = [row for row, length in enumerate(lengths) if length > step]

        def those(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        position = those([trail.before[row] + step for row in rows])
        window = rope = None
        if "attention" in config.block_types:
            size = config.attention_window_size
            window = ops.plan_window(position[:, None], size, position, True)
            rope = ops.rope_table(position[:, None], config.rope_width, config.rope_theta, dtype)
        tokens = those([begin[row] + step for row in rows])
        kept = those([trail.kept[row] + step - 1 for row in rows]) if step else None
        yield Step(those(rows), tokens, position[:, None], kept, window, rope)
