"""bf16: units of two inputs, 16 rows x 2 values, 64 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import kernels, native
from griffin.ops.packed_linear.memory import allocate
from griffin.ops.packed_linear.packed import Layout, Packed, in_slices, interleave, pad, separate


def pack_bf16(weight: Tensor) -> Packed:
    """Pack weights (O, I) as bfloat16: exact where they are bfloat16 already."""
    shape = BF16.data_shape(*weight.shape)
    if native.built() and weight.device.type == "cpu" and weight.dtype == torch.bfloat16:
        data = allocate(shape)
        kernels.call("pack_pairs", weight.dtype, weight.shape, (weight, data))
        return Packed(data, None, BF16.name, weight.shape[0], weight.shape[1])

    def panels(at: slice) -> Tensor:
        padded = pad(weight[at].to(torch.bfloat16), BF16.unit_inputs, 0)
        return interleave(padded.view(torch.int32))

    data = in_slices(weight, shape, panels)
    return Packed(data, None, BF16.name, weight.shape[0], weight.shape[1])


def _unpack(data: Tensor, scale: Tensor | None) -> Tensor:
    return separate(data).view(torch.bfloat16).flatten(0, 1).float()


BF16 = Layout(
    name="bf16",
    number=0,
    unit_inputs=2,
    unit_bytes=64,
    row_scales=False,
    whole_numbers=False,
    activation_group=None,
    pack=pack_bf16,
    unpack=_unpack,
)
