"""bf16: no quantization at all, only the order in which the kernels read fastest."""

from __future__ import annotations

from torch import Tensor

from griffin.ops import Packed, pack
from griffin.quant.format import Format


def quantize(weight: Tensor) -> Packed:
    """Pack weights (O, I) as bfloat16: exact where they are bfloat16 already."""
    return pack(weight, "bf16")


BF16 = Format("bf16", "16 bits: bfloat16 weights as they are, packed for speed", quantize, None)
