"""A vector for a text, of what the model's trunk made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from griffin.engine.read import CHUNK
from griffin.engine.request import check_ids
from griffin.model import Griffin

Pooling = Literal["mean", "last"]
ROWS = 8  # texts that are read together; each has a state of its own meanwhile


def embed(
    model: Griffin,
    texts: Sequence[Sequence[int]],
    pooling: Pooling = "mean",
    *,
    chunk: int = CHUNK,
    rest: Callable[[], object] | None = None,
    adapter: str = "",
) -> Tensor:
    """Return a vector of length 1 for each text, from the hidden states that the head looks at.

    texts:   ids of each, as they are read.
    pooling: "mean" of the states at all ids, or the "last" one.
    chunk:   tokens a call of the model reads; short texts share a call.
    adapter: name of the model's adapter that reads; "" is none.
    rest:    called after each call of the model; what it raises ends this.
    Returns (n, D) float32 on the CPU, in the order of the texts. Raises ValueError for a text
    without ids, ids outside the vocabulary, and another pooling.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {pooling!r}; there are {' and '.join(get_args(Pooling))}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, not {chunk}")
    for number, ids in enumerate(texts):
        check_ids(ids, model.config.vocab_size, "the text" if len(texts) == 1 else f"text {number}")
    vectors = torch.empty(len(texts), model.config.width, dtype=torch.float64)
    with torch.no_grad():
        for numbers in _together([len(ids) for ids in texts], chunk):
            own = [texts[number] for number in numbers]
            read = _read(model, own, pooling, chunk, rest, model.adapters.index(adapter))
            vectors[numbers] = read
    vectors /= vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
    if not vectors.isfinite().all():
        raise FloatingPointError("the model's hidden states are not finite")
    return vectors.float()


def _together(lengths: Sequence[int], chunk: int) -> Iterator[list[int]]:
    """Group texts, by their numbers: one alone, or several that fit into a call, padding too."""
    group: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) == ROWS or (len(group) + 1) * lengths[number] > chunk):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _read(
    model: Griffin,
    texts: Sequence[Sequence[int]],
    pooling: Pooling,
    chunk: int,
    rest: Callable[[], object] | None,
    adapter: int,
) -> Tensor:
    """Return a pooled state of each text, (n, D) float64 on the CPU.

    Padding stands behind a text, where nothing of it sees it.
    """
    sums = torch.zeros(len(texts), model.config.width, dtype=torch.float64)
    longest, state = max(map(len, texts)), None
    for start in range(0, longest, chunk):
        tokens = torch.zeros(len(texts), min(chunk, longest - start), dtype=torch.int64)
        for row, ids in enumerate(texts):
            piece = torch.as_tensor(ids[start : start + chunk])
            tokens[row, : len(piece)] = piece
        donate, adapters = state is not None, [adapter] * len(texts)
        hidden, state = model.trunk(
            tokens.to(model.device), state, donate=donate, adapters=adapters
        )
        for row, ids in enumerate(texts):
            own = hidden[row, : max(0, len(ids) - start)]
            if pooling == "mean":
                sums[row] += own.float().sum(0).cpu()
            elif len(own):
                sums[row] = own[-1].float().cpu()
        if rest is not None:
            rest()
    lengths = torch.tensor([[len(ids)] for ids in texts])
    return sums / lengths if pooling == "mean" else sums
