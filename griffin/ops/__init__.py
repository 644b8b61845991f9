"""Arithmetic on tensors; knows no model.

Each op is a folder: `__init__` holds the documented function and its checks, `reference` the
equation as a loop that is never optimised, `eager` a path in torch without a Python loop over time,
`native` the C++ kernel on the CPU. One place, `dispatch`, chooses.
"""

from griffin.ops.causal_conv import causal_conv
from griffin.ops.devices import pinned, upload
from griffin.ops.dispatch import describe, unforced, use
from griffin.ops.draw_tokens import Draw, DrawnTokens, draw_tokens
from griffin.ops.few_rows import Laid, few_rows, lay, many_rows, unlay
from griffin.ops.gated_gelu import gated_gelu, gated_linear
from griffin.ops.keep_before import keep_before
from griffin.ops.linear import linear
from griffin.ops.linear_scan import linear_scan
from griffin.ops.local_attention import Window, local_attention, plan_window
from griffin.ops.look_up_rows import look_up_rows
from griffin.ops.packed_linear import (
    Packed,
    input_gradient,
    look_up,
    pack,
    packed_linear,
    packed_matrix,
    unpack,
)
from griffin.ops.packed_linear.memory import allocate, unmap, zeros_together
from griffin.ops.recurrent_step import recurrent_step
from griffin.ops.recurrent_unit import recurrent_carry, recurrent_unit
from griffin.ops.rg_lru import rg_lru, rg_lru_at
from griffin.ops.ring_attention import ring_attention
from griffin.ops.rms_norm import residual_norm, rms_norm
from griffin.ops.rope import apply_rope, rope_frequencies, rope_table, rope_turns
from griffin.ops.screened_linear import screened_linear
from griffin.ops.soft_cap import soft_cap

__all__ = [
    "Draw",
    "DrawnTokens",
    "Laid",
    "Packed",
    "Window",
    "allocate",
    "apply_rope",
    "causal_conv",
    "describe",
    "draw_tokens",
    "few_rows",
    "gated_gelu",
    "gated_linear",
    "input_gradient",
    "keep_before",
    "lay",
    "linear",
    "linear_scan",
    "local_attention",
    "look_up",
    "look_up_rows",
    "many_rows",
    "pack",
    "packed_linear",
    "packed_matrix",
    "pinned",
    "plan_window",
    "recurrent_carry",
    "recurrent_step",
    "recurrent_unit",
    "residual_norm",
    "rg_lru",
    "rg_lru_at",
    "ring_attention",
    "rms_norm",
    "rope_frequencies",
    "rope_table",
    "rope_turns",
    "screened_linear",
    "soft_cap",
    "unforced",
    "unlay",
    "unmap",
    "unpack",
    "upload",
    "use",
    "zeros_together",
]
