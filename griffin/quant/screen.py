"""The preview of a model's head."""

from __future__ import annotations

import torch

from griffin.model import Griffin
from griffin.model.packed import Screen
from griffin.ops import Packed, allocate
from griffin.ops.packed_linear import PANEL, get_layout
from griffin.ops.packed_linear.layouts import unpack_rows
from griffin.quant import int3

FORMAT = "int3"
_PANELS = 256  # rounded at once, so that little memory is needed beside the head


@torch.no_grad()
def add_screen(model: Griffin) -> Griffin:
    """Give a model with a packed head a preview of it, in place (docs/quantization.md).

    Returns the model. Raises ValueError for a head that is not packed, and for one that lies
    elsewhere than on the CPU.
    """
    head = model.head
    check_screen(model.device, isinstance(head, Packed))
    assert isinstance(head, Packed)
    model.screen = Screen(preview_of(head))
    return model


def check_screen(device: torch.device, packed: bool) -> None:
    """Raise ValueError where no screen can stand: it is for the CPU, beside a packed head."""
    if device.type != "cpu":
        raise ValueError(
            f"a screen is for the CPU; the model is for {device}: leave the screen out"
        )
    if not packed:
        raise ValueError(
            "a screen stands beside a packed head; quantize the model to int8, or to int4 with a"
            " head of int8"
        )


def preview_of(head: Packed) -> Packed:
    """Return a packed matrix, of rounded weights too, in 3 bits a value."""
    rows, inputs = head.out_features, head.in_features
    layout = get_layout(FORMAT)
    data = allocate(layout.data_shape(rows, inputs))
    low = allocate(layout.low_shape(rows, inputs))
    for first in range(0, len(data), _PANELS):
        last = min(first + _PANELS, len(data))
        some = unpack_rows(head, first, last)[: rows - first * PANEL, :inputs]
        made = int3.quantize(some)
        assert made.low is not None
        data[first:last], low[first:last] = made.data, made.low
    return Packed(data, None, FORMAT, rows, inputs, low)
