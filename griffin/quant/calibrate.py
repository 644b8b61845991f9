"""Quantization with sample text, layer by layer: each is given what the rounded ones before it
return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model import Griffin
from griffin.model.layers import Linear
from griffin.model.packed import install, packable
from griffin.quant.formats import get_format
from griffin.quant.gptq import gptq
from griffin.quant.quantize import refuse_packed

_TOKENS = 4096  # go through a layer at a time
# The embedding is read row by row too, where the head's inputs mean nothing: it follows the sample
# less.
_HEAD_DAMPING = 0.3


@torch.no_grad()
def calibrate(
    model: Griffin,
    tokens: Tensor,
    format: str,
    progress: Callable[[int, int], object] | None = None,
    *,
    head: str | None = None,
) -> Griffin:
    """Do as `quantize_model`, choosing each value for the least change on a sample (GPTQ).

    tokens:   (R, T) ids of R texts, such as 32 of 1,024 tokens. More is better until a few times
              the widest layer's inputs.
    progress: called with the number of layers done and of all.
    head:     another format for the head, as in `quantize_model`.
    Reads the sample twice, however many layers there are. Memory beside the model: its hidden
    states and the largest (F, F) matrix a few times over. Returns the model. Raises ValueError for
    a format that does not exist or has nothing to calibrate, a model that is quantized already, and
    ids it does not have.
    """
    chosen, last = get_format(format), get_format(head or format)
    refuse_packed(model)
    if tokens.dim() != 2 or not tokens.numel() or tokens.is_floating_point():
        raise ValueError(
            f"tokens must be (R, T) integers, not {tuple(tokens.shape)} {tokens.dtype}"
        )
    if int(tokens.min()) < 0 or int(tokens.max()) >= model.config.vocab_size:
        raise ValueError(
            f"the sample holds ids outside the vocabulary of {model.config.vocab_size}"
        )
    if chosen.grid is None or last.grid is None:
        nothing = format if chosen.grid is None else head
        raise ValueError(f"{nothing} has nothing to calibrate; leave the sample out")
    config, dtype = model.config, model.dtype
    parts = tokens.to(model.device).split(max(1, _TOKENS // tokens.shape[1]))
    total = config.num_layers + 1
    streams = [model.model.embed_tokens(part) for part in parts]
    where = [_Where(model, part.shape) for part in parts]
    for number, block in enumerate(model.model.layers):
        prefix = f"model.layers.{number}."
        names = [name for name in packable(model) if name.startswith(prefix)]
        with _watched({name: model.get_submodule(name) for name in names}) as grams:
            for stream, place in zip(streams, where, strict=True):
                place.run(block, stream)
        for name in names:
            layer = model.get_submodule(name)
            assert isinstance(layer, Linear)
            install(model, name, gptq(layer.weight.detach(), grams.mean(name), chosen), dtype)
        streams = [place.run(block, stream) for stream, place in zip(streams, where, strict=True)]
        if progress is not None:
            progress(number + 1, total)
    grams = _Grams()
    for stream in streams:
        grams.add("head", model.model.final_norm(stream))
    embedding = model.model.embed_tokens.weight.detach()
    if config.tie_embeddings:
        packed = gptq(embedding, grams.mean("head"), last, _HEAD_DAMPING)
        install(model, "model.embed_tokens", packed, dtype)
    else:
        install(model, "model.embed_tokens", chosen.quantize(embedding), dtype)
        weight = model.lm_head.weight.detach()
        install(model, "lm_head", gptq(weight, grams.mean("head"), last), dtype)
    if progress is not None:
        progress(total, total)
    return model


class _Where:
    """The positions of some rows, and what attention needs to know of them."""

    def __init__(self, model: Griffin, shape: torch.Size) -> None:
        config = model.config
        self.positions = torch.arange(shape[1], device=model.device).expand(shape)
        self.window = self.rope = None
        if "attention" in config.block_types:
            self.window = ops.plan_window(self.positions, config.attention_window_size, None, True)
            self.rope = ops.rope_table(
                self.positions, config.rope_width, config.rope_theta, model.dtype
            )

    def run(self, block: nn.Module, stream: Tensor) -> Tensor:
        return block(stream, self.positions, self.window, self.rope, None)[0]


class _Grams:
    """The mean of x x^T for each of several layers; layers that are given the same x share the
    product."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._last: Tensor | None = None
        self._product = torch.empty(0)

    def add(self, name: str, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1])
        if x is not self._last:
            wide = rows.float()
            self._last, self._product = x, wide.T @ wide
        if name in self._sums:
            self._sums[name] = self._sums[name] + self._product
        else:
            self._sums[name] = self._product
        self._rows[name] = self._rows.get(name, 0) + len(rows)

    def mean(self, name: str) -> Tensor:
        """Return a layer's mean, and forget it."""
        return self._sums.pop(name) / self._rows.pop(name)


@contextmanager
def _watched(layers: dict[str, nn.Module]) -> Iterator[_Grams]:
    """Collect what goes into layers while the block runs."""
    grams = _Grams()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: grams.add(name, inputs[0])

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield grams
    finally:
        for handle in handles:
            handle.remove()
