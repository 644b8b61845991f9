"""Layers whose weights lie packed for the kernels: what stands in for Linear and Embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.layers import Embedding, Linear
from griffin.ops.packed_linear import PANEL, get_layout, upper_bits

SCREEN = "screen"  # the module of a model that holds a preview of its head
_PANELS = 256  # of 16 rows each, read whole for a token behind a screen; of a small head a quarter
_ENDS = ("lm_head", "embed_tokens")  # where logits come from: the first of them that is packed


class PackedWeight(nn.Module):
    """Packed weights as buffers: `weight_packed` and, where the format has them, `weight_scale`.

    They move with `.to(device)`; `.to(dtype)` changes what goes in and out, never them.
    laid: what became of them where a GPU's steps are laid (`lie_in`): then they are gone.
    """

    weight_packed: Tensor
    weight_scale: Tensor | None

    def __init__(self, packed: ops.Packed) -> None:
        super().__init__()
        self.laid: ops.Laid | None = None
        self.format = packed.format
        self.out_features = packed.out_features
        self.in_features = packed.in_features
        self.register_buffer("weight_packed", packed.data)
        self.register_buffer("weight_scale", packed.scale)

    def lie_in(self, whole: ops.Laid, first: int) -> None:
        """Give the packed tensors up for rows `first` ... of what steps of a GPU read, so that the
        weights lie there once.

        From then on the layer stays on that device, multiplies by these rows, and is not saved.
        """
        rows = slice(first, first + self.out_features)
        scale = whole.scale
        if scale is not None:
            scale = scale[rows] if scale.dim() == 1 else scale[:, rows]
        bias = None if whole.bias is None else whole.bias[rows]
        self.laid = whole._replace(data=whole.data[rows], scale=scale, bias=bias)
        # Counted as a module's tensors are, each once.
        self.weight_packed, self.weight_scale = self.laid.data, self.laid.scale
        self.whole: Callable[[], ops.Laid] = lambda: whole

    def _save_to_state_dict(self, *given: Any, **options: Any) -> None:
        self._check_here()
        super()._save_to_state_dict(*given, **options)

    def _check_here(self) -> None:
        if self.laid is not None:
            raise ValueError(
                f"a layer's {self.format} weights were laid out for a GPU's steps, which cannot be"
                " undone; load the model again with graphs=False to save or change it"
            )

    @property
    def packed(self) -> ops.Packed:
        self._check_here()
        return ops.Packed(
            self.weight_packed, self.weight_scale, self.format, self.out_features, self.in_features
        )

    @property
    def weight(self) -> Tensor:
        """The (O, I) matrix in float32, unpacked anew each time: for tools and tests, not for
        speed."""
        if self.laid is not None:
            return ops.unlay(self.laid, torch.float32)
        return ops.unpack(self.packed)

    bias: nn.Parameter | None

    def matrix(self) -> Any:
        """Return the native module's view of weights and bias; it does not keep them alive."""
        return ops.packed_matrix(self.packed, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features},"
            f" format={self.format!r}"
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if self.laid is not None and fn(self.laid.data[:1]).device != self.laid.data.device:
            self._check_here()
        scale = self.weight_scale
        super()._apply(fn, recurse)
        if (
            scale is not None
            and self.weight_scale is not None
            and self.weight_scale.dtype != scale.dtype
        ):
            self.weight_scale = scale.to(self.weight_scale.device)
        return self


class PackedLinear(PackedWeight):
    """x W^T + b with packed W. wide: return float32 whatever x is, as logits want it."""

    def __init__(self, packed: ops.Packed, bias: nn.Parameter | None, wide: bool = False) -> None:
        super().__init__(packed)
        self.bias = bias
        self.wide = wide

    def forward(self, input: Tensor) -> Tensor:
        out = torch.promote_types(input.dtype, torch.float32) if self.wide else input.dtype
        if self.laid is not None:
            return ops.many_rows(input, self.laid, out_dtype=out)
        return ops.packed_linear(input, self.packed, self.bias, out)


class PackedEmbedding(PackedWeight):
    """Token embeddings from packed rows, times `scale`; as a tied head, the same bytes turned into
    logits."""

    like: Tensor

    def __init__(self, packed: ops.Packed, scale: float, dtype: torch.dtype) -> None:
        super().__init__(packed)
        self.bias = None
        self.scale = scale
        # Nothing but a dtype: it follows `.to(dtype)`, as what comes out of a lookup should.
        self.register_buffer(
            "like", torch.empty(0, dtype=dtype, device=packed.data.device), persistent=False
        )

    def forward(self, input: Tensor) -> Tensor:
        ids = input.reshape(-1)
        if self.laid is not None:
            rows = ops.look_up_rows(ids, self.laid, self.scale, self.like.dtype)
        else:
            rows = ops.look_up(self.packed, ids, self.scale, self.like.dtype)
        return rows.unflatten(0, input.shape)

    def unembed(self, hidden: Tensor) -> Tensor:
        """Multiply hidden states (..., D) by the embedding: (..., V) in float32 or wider."""
        out = torch.promote_types(hidden.dtype, torch.float32)
        if self.laid is not None:
            return ops.many_rows(hidden, self.laid, out_dtype=out)
        return ops.packed_linear(hidden, self.packed, None, out)


class Screen(PackedWeight):
    """The head's rows in three bits, beside the packed head itself.

    panels: how many panels of 16 rows are read whole for each row of hidden states, by how many
            bits of all rows are read: more where three are, because all logits count then.
    """

    weight_low: Tensor

    def __init__(self, preview: ops.Packed) -> None:
        super().__init__(preview)
        self.bias = None
        self.register_buffer("weight_low", preview.low)
        few = panels_read(preview.out_features)
        self.panels = {2: few, 3: few + few // 2}

    @property
    def packed(self) -> ops.Packed:
        return super().packed._replace(low=self.weight_low)

    def forward(self, hidden: Tensor, head: ops.Packed, bits: Literal[2, 3]) -> Tensor:
        """Turn hidden states (..., D) into logits (..., V) float32: those of the head where they
        are largest, elsewhere the preview's, of which so many bits a weight are read."""
        preview = self.packed if bits == 3 else upper_bits(self.packed)
        return ops.screened_linear(hidden, preview, head, self.panels[bits])


def panels_read(outputs: int) -> int:
    """Return how many panels of so many outputs a row behind a screen reads whole to choose among
    the largest."""
    return min(_PANELS, max(1, panel_count(outputs) // 4))


def panel_count(outputs: int) -> int:
    """Return how many panels so many outputs lie in."""
    return -(-outputs // PANEL)


def install(model: nn.Module, name: str, packed: ops.Packed, dtype: torch.dtype) -> None:
    """Replace the Linear or Embedding called `name` by one that holds `packed`; a bias stays the
    same object.

    dtype: the model's, of what a lookup returns. Raises ValueError for a shape that is not the
           layer's.
    """
    layer = model.get_submodule(name)
    if not isinstance(layer, (Linear, Embedding)):
        raise ValueError(
            f"{name} is a {type(layer).__name__}; only Linear and Embedding have packed twins"
        )
    if tuple(layer.weight.shape) != (packed.out_features, packed.in_features):
        raise ValueError(
            f"{name} is {tuple(layer.weight.shape)}, the packed weights are "
            f"({packed.out_features}, {packed.in_features})"
        )
    if isinstance(layer, Embedding):
        twin: nn.Module = PackedEmbedding(packed, layer.scale, dtype)
    else:
        twin = PackedLinear(packed, layer.bias, wide=name == "lm_head")
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, twin.train(layer.training))


def packable(model: nn.Module) -> list[str]:
    """Return the names of the layers that have packed twins, in the order of the model."""
    return [name for name, layer in model.named_modules() if isinstance(layer, (Linear, Embedding))]


def packed_format(model: nn.Module) -> str | None:
    """Return the format of a model's packed layers, None if it has none.

    The head, an embedding where it is tied to one, may have another (`head_format`). Raises
    ValueError for a model of several formats otherwise, which no file of ours holds.
    """
    head, others = _packed_formats(model)
    if len(others) > 1:
        raise ValueError(
            f"the model's layers are packed as {', '.join(sorted(others))}; expected one format"
        )
    return others.pop() if others else head


def head_format(model: nn.Module) -> str | None:
    """Return the format of a model's head where it is another than that of all other layers."""
    head, _ = _packed_formats(model)
    return None if head == packed_format(model) else head


def _packed_formats(model: nn.Module) -> tuple[str | None, set[str]]:
    """Return the format of the layer that gives the logits, None if it is not packed, and those of
    all other layers."""
    ends, others = dict[str, str](), set[str]()
    for name, layer in model.named_modules():
        if isinstance(layer, PackedWeight) and not isinstance(layer, Screen):
            end = next((part for part in name.split(".") if part in _ENDS), "")
            if end:
                ends[end] = layer.format
            else:
                others.add(layer.format)
    head = next((ends[end] for end in _ENDS if end in ends), None)
    return head, others | (set(ends.values()) - {head})


def screen_format(model: nn.Module) -> str | None:
    """Return the format of a model's preview of its head, None if it has none."""
    screen = getattr(model, SCREEN, None)
    return None if screen is None else screen.format


def rounded_format(model: nn.Module) -> str | None:
    """Return the format that a model's weights were rounded to, None if they were not.

    "int4, head int8" where the head has its own, "int8, screen int3" with a screen, which changes
    what is computed too. A format may change the order of the weights alone. Raises ValueError as
    `packed_format` does.
    """
    format, head, screen = packed_format(model), head_format(model), screen_format(model)
    found = [each for each in (format, head) if each is not None]
    if screen is None and not any(get_layout(each).whole_numbers for each in found):
        return None
    return ", head ".join(found) + (f", screen {screen}" if screen else "")
