"""The table of formats."""

from __future__ import annotations

import torch

from griffin.ops import native
from griffin.quant.bf16 import BF16
from griffin.quant.format import Format
from griffin.quant.int4 import INT4
from griffin.quant.int8 import INT8

FORMATS: dict[str, Format] = {format.name: format for format in (INT8, INT4, BF16)}


def get_format(name: str) -> Format:
    """Return a format by its name; an unknown one is a ValueError that lists those there are."""
    if name not in FORMATS:
        known = "; ".join(f"{format.name} ({format.description})" for format in FORMATS.values())
        raise ValueError(f"no format {name!r}; there are {known}")
    return FORMATS[name]


def fastest_layout(dtype: torch.dtype, device: torch.device | str) -> str | None:
    """Return the format read fastest that changes no weight of this type; None: as they are."""
    packs = dtype == torch.bfloat16 and torch.device(device).type == "cpu" and native.built()
    return "bf16" if packs else None
