"""A state cut into parts that many states can share, and put together again, bit for bit.

Convolutions and recurrences are new after every token: the recurrent part, small and of fixed size.
Keys and values are written once and stay until the window has left them behind: spans of tokens. So
two states of one conversation differ in their recurrent parts and share most of their spans. The
prefix cache and sessions both live on this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from griffin.model import GriffinConfig, State
from griffin.model.state import AttentionState, RecurrentState


class RecurrentPart(NamedTuple):
    """What all recurrent layers remember, in the order of the layers; empty without such layers."""

    conv: Tensor  # (layers, W-1, E)
    lru: Tensor  # (layers, E)

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return self.conv.nbytes + self.lru.nbytes


class Span(NamedTuple):
    """Keys and values of the positions [start, stop) of a document, of all attention layers."""

    start: int
    stop: int
    k: Tensor  # (layers, stop - start, K, H)
    v: Tensor  # (layers, stop - start, K, H)

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return self.k.nbytes + self.v.nbytes


def window(config: GriffinConfig, pos: int) -> range:
    """Return the positions whose keys and values a state after `pos` tokens holds.

    The last S of them, S = attention_window_size; none in a model without attention layers.
    """
    if "attention" not in config.block_types:
        return range(pos, pos)
    return range(max(0, pos - config.attention_window_size), pos)


def ring_runs(start: int, stop: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield where positions [start, stop) lie in the ring: (place from start, slot, count)."""
    place = start
    while place < stop:
        slot = place % size
        count = min(size - slot, stop - place)
        yield place - start, slot, count
        place += count


def recurrent_bytes(config: GriffinConfig, dtype: torch.dtype) -> int:
    """Return the bytes of a recurrent part: 460,800 for 2B in bfloat16."""
    wide = torch.promote_types(dtype, torch.float32)
    layer = config.lru_width * ((config.conv_width - 1) * dtype.itemsize + wide.itemsize)
    return config.block_types.count("recurrent") * layer


def span_bytes(config: GriffinConfig, dtype: torch.dtype) -> int:
    """Return the bytes of a span for each of its positions: 8,192 for 2B in bfloat16."""
    layer = 2 * config.num_kv_heads * config.head_dim * dtype.itemsize
    return config.block_types.count("attention") * layer


@torch.no_grad()
def cut_recurrent(state: State) -> RecurrentPart:
    """Copy the recurrent part out of a state of one row. ValueError for more rows."""
    _only_row(state)
    layers = [layer for layer in state.layers if isinstance(layer, RecurrentState)]
    if not layers:
        return RecurrentPart(torch.empty(0, 0, 0), torch.empty(0, 0))
    return RecurrentPart(
        *(torch.stack([x[0] for x in column]) for column in zip(*layers, strict=True))
    )


@torch.no_grad()
def cut_span(state: State, start: int, stop: int, pos: int | None = None) -> Span:
    """Copy keys and values of the positions [start, stop) out of a state of one row.

    pos: how many tokens it has read, where the caller knows; else the state is asked, and a device
         that it lies on waited for.
    Raises ValueError for more rows, and for positions that the state has not read or no longer
    holds. A model without attention layers has spans without bytes, of any positions up to the
    last.
    """
    _only_row(state)
    pos = int(state.pos[0]) if pos is None else pos
    layers = [layer for layer in state.layers if isinstance(layer, AttentionState)]
    size = layers[0].k.shape[1] if layers else pos
    if not max(0, pos - size) <= start <= stop <= pos:
        raise ValueError(
            f"positions {start} to {stop} are not in the state; it holds {max(0, pos - size)} to"
            f" {pos}"
        )
    if not layers:
        nothing = torch.empty(0, stop - start, 0, 0)
        return Span(start, stop, nothing, nothing)
    like = layers[0].k
    k, v = (like.new_empty(len(layers), stop - start, *like.shape[2:]) for _ in "kv")
    for place, slot, count in ring_runs(start, stop, size):
        for number, layer in enumerate(layers):
            k[number, place : place + count] = layer.k[0, slot : slot + count]
            v[number, place : place + count] = layer.v[0, slot : slot + count]
    return Span(start, stop, k, v)


@torch.no_grad()
def join(
    config: GriffinConfig,
    pos: int,
    recurrent: RecurrentPart,
    spans: Iterable[Span],
    dtype: torch.dtype,
) -> State:
    """Put a state of one row together; it shares nothing with its parts.

    pos:       tokens the state has read.
    recurrent: cut from the state after exactly these tokens.
    spans:     in any order, overlapping or not; together they must cover `window(config, pos)`.
               What lies outside of it is left out.
    dtype:     the model's.
    Returns what the parts were cut from, to the bit, slots that were never written (zeros)
    included. Raises ValueError for parts of another shape or type, and for positions that no span
    covers.
    """
    if pos < 0:
        raise ValueError(f"pos must be 0 or more tokens, not {pos}")
    spans = sorted(spans, key=lambda span: span.start)
    _check(config, dtype, recurrent, spans)
    device = recurrent.lru.device if recurrent.lru.numel() or not spans else spans[0].k.device
    state = unwritten(config, pos, dtype, device)
    layers = [layer for layer in state.layers if isinstance(layer, RecurrentState)]
    for number, layer in enumerate(layers):
        layer.conv[0] = recurrent.conv[number]
        layer.lru[0] = recurrent.lru[number]

    for span, start, stop in _cover(spans, window(config, pos)):
        _write(state, span, start, stop)
    return state


@torch.no_grad()
def merge(spans: Iterable[Span], needed: range, room: Callable[..., Tensor] = torch.empty) -> Span:
    """Copy keys and values of positions into one span, from spans in any order, overlapping or not.

    room: makes the new tensors, as torch.empty does. Raises ValueError for positions that no span
    covers; without positions the span is empty, and has no shape.
    """
    spans = sorted(spans, key=lambda span: span.start)
    if not needed:
        nothing = torch.empty(0, 0, 0, 0)
        return Span(needed.start, needed.stop, nothing, nothing)
    parts = list(_cover(spans, needed))
    like = parts[0][0].k
    shape = len(like), len(needed), *like.shape[2:]
    k, v = (room(*shape, dtype=like.dtype) for _ in "kv")
    for span, start, stop in parts:
        at = slice(start - needed.start, stop - needed.start)
        own = slice(start - span.start, stop - span.start)
        k[:, at], v[:, at] = span.k[:, own], span.v[:, own]
    return Span(needed.start, needed.stop, k, v)


def _cover(spans: list[Span], needed: range) -> Iterator[tuple[Span, int, int]]:
    """Yield spans, in order, with the positions that are taken from each; ValueError where there
    are none."""
    reached = needed.start
    for span in spans:
        stop = min(span.stop, needed.stop)
        if span.start <= reached < stop:
            yield span, reached, stop
            reached = stop
    if reached < needed.stop:
        raise ValueError(
            f"a state after {needed.stop} tokens needs keys and values of positions {needed.start}"
            f" to {needed.stop}; no span covers position {reached}"
        )


def unwritten(
    config: GriffinConfig, pos: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> State:
    """Return a state of one row after `pos` tokens, all zeros, for the caller to fill."""
    state = State.zeros(config, 1, dtype=dtype, device=device)
    state.pos.fill_(pos)
    return state


def _only_row(state: State) -> None:
    if state.batch != 1:
        raise ValueError(
            f"pieces are cut from a state of one row, not {state.batch}; use state.select([row])"
        )


def _write(state: State, span: Span, start: int, stop: int) -> None:
    layers = [layer for layer in state.layers if isinstance(layer, AttentionState)]
    for place, slot, count in ring_runs(start, stop, layers[0].k.shape[1]):
        first = start - span.start + place
        for number, layer in enumerate(layers):
            layer.k[0, slot : slot + count] = span.k[number, first : first + count]
            layer.v[0, slot : slot + count] = span.v[number, first : first + count]


def _check(
    config: GriffinConfig, dtype: torch.dtype, recurrent: RecurrentPart, spans: list[Span]
) -> None:
    """Raise ValueError unless all parts are such a model's; nothing is converted or broadcast."""
    wide = torch.promote_types(dtype, torch.float32)
    count = config.block_types.count("recurrent")
    if count:
        _fits("conv", recurrent.conv, (count, config.conv_width - 1, config.lru_width), dtype)
        _fits("lru", recurrent.lru, (count, config.lru_width), wide)
    elif recurrent.nbytes:
        raise ValueError("the model has no recurrent layers, and the recurrent part is not empty")
    count = config.block_types.count("attention")
    for span in spans:
        if count:
            shape = (count, span.stop - span.start, config.num_kv_heads, config.head_dim)
            _fits("k", span.k, shape, dtype)
            _fits("v", span.v, shape, dtype)
        elif span.nbytes:
            raise ValueError("the model has no attention layers, and a span is not empty")


def _fits(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} {tensor.dtype}; this model's would be {shape} {dtype}"
        )
