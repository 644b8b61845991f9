"""Arithmetic on tensors; knows no model.

Each op is a folder: `__init__` holds the documented function and its checks, `reference` the equation as a
loop that is never optimised, `eager` a path in torch without a Python loop over time, `native` the C++ kernel
on the CPU. One place, `dispatch`, chooses.
"""

from griffin.ops.causal_conv import causal_conv
from griffin.ops.dispatch import describe, use
from griffin.ops.linear import linear
from griffin.ops.linear_scan import linear_scan
from griffin.ops.local_attention import Window, local_attention, plan_window
from griffin.ops.packed_linear import Packed, pack, packed_linear, unpack
from griffin.ops.rg_lru import rg_lru
from griffin.ops.rms_norm import rms_norm
from griffin.ops.rope import apply_rope, rope_table

__all__ = [
    "Packed",
    "Window",
    "apply_rope",
    "causal_conv",
    "describe",
    "linear",
    "linear_scan",
    "local_attention",
    "pack",
    "packed_linear",
    "plan_window",
    "rg_lru",
    "rms_norm",
    "rope_table",
    "unpack",
    "use",
]
