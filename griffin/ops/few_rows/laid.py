"""Weights as a GPU's product of few rows reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.packed_linear.groups import GROUP
from griffin.ops.packed_linear.int4 import steps_int4
from griffin.ops.packed_linear.int8 import bytes_int8
from griffin.ops.packed_linear.layouts import SLICE, unpack
from griffin.ops.packed_linear.packed import PANEL, Packed

BLOCK = 256  # inputs of which words are made together
BITS = {"int8": 8, "int4": 4}


class Laid(NamedTuple):
    """Matrices of the same inputs, one's outputs below the other's: O outputs of I inputs.

    format None: data holds (O, I) as they are. int8 and int4: data holds words of 32 bits, (O, W)
    int32, of 4 values + 128 or of 8 values + 8. In a block of 256 inputs there are 64 (32) words,
    and the p-th value of word j is input 64 p + j (32 p + j) of the block. So a tile of words is
    read 16 bytes at a time and each shift gives a tile of inputs that follow each other, at int4 a
    whole group with one scale.
    """

    data: Tensor
    scale: Tensor | None  # int8: (O,) float32; int4: (groups, O) float16, in whole blocks
    bias: Tensor | None  # (O,)
    format: str | None
    in_features: int

    @property
    def out_features(self) -> int:
        return self.data.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return sum(t.nbytes for t in (self.data, self.scale, self.bias) if t is not None)


def lay(matrices: Sequence[Tensor | Packed], biases: Sequence[Tensor | None] | None = None) -> Laid:
    """Return matrices (O, I) of the same inputs as one, on their device; packed ones re-laid.

    matrices: tensors of one type, or packed in one format. bf16, which is only an order, is taken
              apart into bfloat16 tensors. A single tensor is kept and not copied, as are those
              that are parts of one, each below the other, already.
    biases:   one (O,) for each, or None where there is none.
    Raises ValueError for none, for several formats, types or inputs, and for biases that do not
    fit.
    """
    if not matrices:
        raise ValueError("there is nothing to lay: give at least one matrix")
    plain = [_plain(each) for each in matrices]
    kinds = {each.format if isinstance(each, Packed) else str(each.dtype) for each in plain}
    inputs = {each.in_features if isinstance(each, Packed) else each.shape[1] for each in plain}
    if len(kinds) > 1 or len(inputs) > 1:
        raise ValueError(
            f"matrices laid together must be of one type and as many inputs, not {sorted(kinds)}"
            f" of {sorted(inputs)} inputs"
        )
    bias = _bias(plain, biases)
    tensors = [each for each in plain if isinstance(each, Tensor)]
    if tensors:
        data = tensors[0].contiguous() if len(tensors) == 1 else _whole(tensors)
        return Laid(data, None, bias, None, data.shape[1])
    parts = [_words(each) for each in plain if isinstance(each, Packed)]
    data = torch.cat([data for data, _ in parts])
    scale = torch.cat([scale for _, scale in parts], dim=-1)
    return Laid(data, scale, bias, kinds.pop(), inputs.pop())


def unlay(weights: Laid, dtype: torch.dtype) -> Tensor:
    """Return the matrix (O, I) that a product multiplies by, rounded once to `dtype`.

    By torch's operations, a slice at a time; `look_up_rows` does it in one launch.
    """
    inputs = weights.in_features
    if weights.format is None:
        return weights.data.to(dtype)
    out = weights.data.new_empty(weights.out_features, inputs, dtype=dtype)
    for first in range(0, weights.out_features, SLICE):
        rows = slice(first, first + SLICE)
        out[rows] = _values(weights, rows)[:, :inputs]
    return out


def _whole(matrices: Sequence[Tensor]) -> Tensor:
    """Return matrices as one, without a copy where they lie so."""
    first, inputs = matrices[0], matrices[0].shape[1]
    at, memory = first.storage_offset(), first.untyped_storage().data_ptr()
    for each in matrices:
        apart = each.untyped_storage().data_ptr() != memory or each.storage_offset() != at
        if apart or not each.is_contiguous():
            return torch.cat(list(matrices))
        at += each.numel()
    return first.as_strided((sum(map(len, matrices)), inputs), (inputs, 1))


def _plain(matrix: Tensor | Packed) -> Tensor | Packed:
    if isinstance(matrix, Packed) and matrix.format == "bf16":
        return unpack(matrix, torch.bfloat16)
    return matrix


def _bias(
    matrices: Sequence[Tensor | Packed], biases: Sequence[Tensor | None] | None
) -> Tensor | None:
    if biases is None or all(each is None for each in biases):
        return None
    sizes = [m.out_features if isinstance(m, Packed) else m.shape[0] for m in matrices]
    if len(biases) != len(sizes) or any(
        b is not None and b.shape != (n,) for b, n in zip(biases, sizes, strict=False)
    ):
        found = [None if b is None else tuple(b.shape) for b in biases]
        raise ValueError(f"matrices of {sizes} outputs take as many biases, not {found}")
    like = next(b for b in biases if b is not None)
    return torch.cat(
        [like.new_zeros(n) if b is None else b for b, n in zip(biases, sizes, strict=True)]
    ).detach()


def _words(packed: Packed) -> tuple[Tensor, Tensor]:
    """Return words and scales of one matrix."""
    bits = BITS[packed.format]
    made, scales = [], []
    for first in range(0, packed.data.shape[0], SLICE // PANEL):
        data = packed.data[first : first + SLICE // PANEL]
        if bits == 8:
            assert packed.scale is not None
            values, zero = bytes_int8(data), 128
            scales.append(packed.scale[first * PANEL :][: len(values)])
        else:
            grouped, scale = steps_int4(data)
            values, zero = grouped.flatten(1), 8
            short = -scale.shape[1] % (BLOCK // GROUP)
            scales.append(functional.pad(scale, (0, short)).T)
        values = functional.pad(values, (0, -values.shape[1] % BLOCK), value=zero)
        planes = values.unflatten(1, (-1, 32 // bits, BLOCK * bits // 32))
        shifts = torch.arange(0, 32, bits, device=values.device)[:, None]
        # Sums of 64 bits, of which the lower 32 are taken: the highest value sets the sign.
        words = (planes.long() << shifts).sum(2)
        words = torch.where(words >= 1 << 31, words - (1 << 32), words)
        made.append(words.to(torch.int32).flatten(1))
    rows = packed.out_features
    return torch.cat(made)[:rows].contiguous(), torch.cat(scales, -1)[..., :rows].contiguous()


def _values(weights: Laid, rows: slice) -> Tensor:
    """Return some rows of packed weights, (rows, inputs in whole blocks) float32."""
    assert weights.format is not None and weights.scale is not None
    bits = BITS[weights.format]
    words = weights.data[rows].unflatten(1, (-1, 1, BLOCK * bits // 32))
    shifts = torch.arange(0, 32, bits, device=words.device)[:, None]
    steps = ((words >> shifts & (1 << bits) - 1) - (1 << bits - 1)).float()
    if bits == 8:
        return steps.flatten(1) * weights.scale[rows, None]
    scale = weights.scale[:, rows].T.float().unflatten(1, (-1, BLOCK // GROUP))
    return (steps * scale[..., None]).flatten(1)
