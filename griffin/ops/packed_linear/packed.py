"""Weights in the order the kernels read them: 16 output rows side by side, one sequential stream a
thread.

A panel is 16 output rows. Within it inputs follow each other, a few of all 16 rows at a time:

bf16      pairs of inputs: 16 rows x 2 values, 64 bytes.
int8      fours of inputs: 16 rows x 4 bytes, 64 bytes, each value + 128; one float32 scale an
                           output row.
int4      blocks of 64 inputs, two groups of 32, 576 bytes: for each group 4 x 64 bytes, 16 rows x 4
bytes,
          whose low halves are inputs 8j..8j+3 of the group and whose high halves are inputs
          8j+4..8j+7, each value + 8; then 2 x 16 scales in half precision.
int4_min  the same in 640 bytes, with 2 x 16 smallest values after the scales: weight = scale *
value + least.

Rows are padded to 16, inputs to 2, 4 or 64, with what stands for zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops import native
from griffin.ops.packed_linear.memory import room, settle

PANEL = 16
GROUP = 32  # inputs that share a scale in the int4 formats
FORMATS = ("bf16", "int8", "int4", "int4_min")
INPUTS = {
    "bf16": 2,
    "int8": 4,
    "int4": 64,
    "int4_min": 64,
}  # the number of inputs is padded to a multiple
LONGEST = 65_536  # inputs: what the 32-bit sums of the int8 kernel can hold
_SLICE = (
    4096  # output rows converted at once, so that packing needs little memory besides the result
)


class Packed(NamedTuple):
    """A weight matrix (O, I) in one of the FORMATS."""

    data: Tensor  # (panels, bytes of a panel) uint8
    scale: (
        Tensor | None
    )  # int8: (O,) float32, padded to whole panels with zeros; otherwise inside data
    format: str
    out_features: int
    in_features: int

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return self.data.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def settled(self) -> Packed:
        """Return the weights in memory of their own, in large pages: faster to read than a mapped
        file."""
        scale = None if self.scale is None else self.scale.clone()
        return self._replace(data=settle(self.data), scale=scale)

    def to(self, device: torch.device | str) -> Packed:
        """Return the weights on another device."""
        scale = None if self.scale is None else self.scale.to(device)
        return self._replace(data=self.data.to(device), scale=scale)


def panel_bytes(format: str, in_features: int) -> int:
    """Return the bytes of 16 packed output rows."""
    _check_format(format)
    steps = -(-in_features // INPUTS[format])
    return steps * {"bf16": 64, "int8": 64, "int4": 576, "int4_min": 640}[format]


def pack(weight: Tensor, format: str) -> Packed:
    """Pack weights (O, I), rounding each to the nearest value the format has.

    bf16:     exact for bfloat16 weights.
    int8:     one scale an output row, largest magnitude / 127.
    int4:     a scale for 32 inputs of a row, so that the value of largest magnitude is exactly -8
              steps.
    int4_min: scale and smallest value for 32 inputs of a row.
    Scales are rounded to what is stored before values are rounded to them. Raises ValueError for a
    format that does not exist and for shapes that cannot be packed.
    """
    _check_format(format)
    if weight.dim() != 2 or 0 in weight.shape or not weight.is_floating_point():
        raise ValueError(
            f"weights must be a floating-point (O, I) matrix, not {tuple(weight.shape)}"
            f" {weight.dtype}"
        )
    if format == "bf16":
        return pack_bf16(weight)
    if format == "int8":
        return pack_int8(*round_int8(weight))
    return pack_int4(*round_int4(weight, format == "int4_min"))


def round_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values (O, I) and float32 scales (O,) nearest to weights (O, I)."""
    weight = weight.float()
    scale = weight.abs().amax(1) / 127
    inverse = torch.where(scale > 0, 1 / scale, 0)
    return (weight * inverse[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def round_int4(weight: Tensor, least: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return values 0..15 (O, I) uint8, scales (O, I/32) float16 and, if asked for, smallest
    values.

    The last group may be shorter. Without smallest values a weight is scale * (value - 8).
    """
    inputs = weight.shape[1]
    # Padding by repetition leaves the last group's extremes what they are.
    repeated = weight[:, -1:].expand(-1, -inputs % GROUP)
    groups = torch.cat([weight, repeated], 1).float().unflatten(1, (-1, GROUP))
    if least:
        low = groups.amin(2).to(torch.float16)
        scale = ((groups.amax(2) - low.float()) / 15).to(torch.float16)
        values = (groups - low.float()[..., None]) * _inverse(scale)
    else:
        low = None
        extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True))[..., 0]
        scale = (extreme / -8).to(torch.float16)
        values = groups * _inverse(scale) + 8
    return (
        values.round_().clamp_(0, 15).to(torch.uint8).flatten(1)[:, :inputs].contiguous(),
        scale,
        low,
    )


def _inverse(scale: Tensor) -> Tensor:
    wide = scale.float()
    return torch.where(wide == 0, 0, 1 / wide)[..., None]


def pack_bf16(weight: Tensor) -> Packed:
    """Pack weights (O, I) as bfloat16."""
    if native.built() and weight.device.type == "cpu" and weight.dtype == torch.bfloat16:
        weight = weight.contiguous()
        out = room((-(-weight.shape[0] // PANEL), panel_bytes("bf16", weight.shape[1])))
        native.module().pack_pairs(
            weight.data_ptr(), *weight.shape, out.data_ptr(), torch.get_num_threads()
        )
        return Packed(out, None, "bf16", *weight.shape)

    def panels(at: slice) -> Tensor:
        padded = _pad(weight[at].to(torch.bfloat16), INPUTS["bf16"], 0)
        return _interleave(padded.view(torch.int32))

    return Packed(_in_slices(weight, "bf16", panels), None, "bf16", *weight.shape)


def pack_int8(values: Tensor, scale: Tensor) -> Packed:
    """Pack int8 values (O, I) with their scales (O,): weight = scale * value."""
    if values.dtype != torch.int8 or values.dim() != 2 or scale.shape != values.shape[:1]:
        raise ValueError(
            f"values must be (O, I) int8 and scale (O,), not {tuple(values.shape)} {values.dtype}, "
            f"{tuple(scale.shape)}"
        )
    if values.shape[1] > LONGEST:
        raise ValueError(f"{values.shape[1]:,} inputs; int8 takes at most {LONGEST:,}")

    def panels(at: slice) -> Tensor:
        unsigned = values[at].view(torch.uint8) ^ 128  # the same bits as adding 128
        return _interleave(_pad(unsigned, INPUTS["int8"], 128).view(torch.int32))

    padded = functional.pad(scale.float(), (0, -scale.shape[0] % PANEL))
    return Packed(_in_slices(values, "int8", panels), padded, "int8", *values.shape)


def pack_int4(values: Tensor, scale: Tensor, least: Tensor | None = None) -> Packed:
    """Pack values 0..15 (O, I) uint8 with scales (O, groups of 32) and perhaps smallest values of
    that shape.

    weight = scale * (value - 8), or scale * value + least.
    """
    groups = (values.shape[0], -(-values.shape[-1] // GROUP))
    shapes = [tuple(t.shape) for t in (scale, least) if t is not None]
    if values.dtype != torch.uint8 or values.dim() != 2 or any(shape != groups for shape in shapes):
        raise ValueError(
            f"values must be (O, I) uint8 and scales (O, I/32) = {groups}, not"
            f" {tuple(values.shape)} {values.dtype}, {shapes}"
        )
    if values.numel() and int(values.max()) > 15:
        raise ValueError(f"values must be 0..15; the largest is {int(values.max())}")
    format = "int4" if least is None else "int4_min"

    def panels(at: slice) -> Tensor:
        padded = _pad(values[at], INPUTS[format], 8 if least is None else 0)
        nibbles = padded.unflatten(
            1, (-1, 2, 4, 2, 4)
        )  # (rows, block, group, j, low or high, input)
        both = nibbles[..., 0, :] | nibbles[..., 1, :] << 4
        stream = both.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 4, 1, 5).flatten(2)
        parts = [stream]
        for extra in (scale, least):
            if extra is not None:
                halves = _pad(extra[at].to(torch.float16), 2, 0).unflatten(1, (-1, 2))
                order = halves.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 1).contiguous().flatten(2)
                parts.append(order.view(torch.uint8))
        return torch.cat(parts, dim=2).flatten(1)

    return Packed(_in_slices(values, format, panels), None, format, *values.shape)


def unpack(packed: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights (O, I) that a product with `packed` multiplies by, rounded to `dtype`.

    Exact for bf16 in every dtype from bfloat16 up; for the integer formats scale times value in
    float32.
    """
    out = torch.empty(
        packed.out_features, packed.in_features, dtype=dtype, device=packed.data.device
    )
    for first in range(0, packed.out_features, _SLICE):
        rows = unpack_rows(
            packed, first // PANEL, min(packed.data.shape[0], (first + _SLICE) // PANEL)
        )
        out[first : first + _SLICE] = rows[: packed.out_features - first, : packed.in_features]
    return out


def unpack_rows(packed: Packed, first: int, last: int) -> Tensor:
    """Return panels first..last-1 as float32 ((last - first) * 16, inputs with padding)."""
    data = packed.data[first:last]
    panels = data.shape[0]
    if packed.format == "bf16":
        return _separate(data).view(torch.bfloat16).flatten(0, 1).float()
    if packed.format == "int8":
        assert packed.scale is not None
        values = _separate(data).view(torch.uint8).flatten(0, 1).float() - 128
        return values * packed.scale[first * PANEL : last * PANEL, None]
    blocks = data.view(panels, -1, 640 if packed.format == "int4_min" else 576)
    both = blocks[..., :512].unflatten(2, (2, 4, PANEL, 4))
    nibbles = torch.stack(
        [both & 15, both >> 4], dim=5
    )  # (panel, block, group, j, row, low or high, input)
    values = nibbles.permute(0, 4, 1, 2, 3, 5, 6).reshape(panels, PANEL, -1, GROUP).float()

    def halves(at: int) -> Tensor:  # (panel, row, group, 1)
        found = blocks[..., at : at + 64].contiguous().view(torch.float16).unflatten(2, (2, PANEL))
        return found.permute(0, 3, 1, 2).flatten(2)[..., None].float()

    scaled = (
        values * halves(512) + halves(576)
        if packed.format == "int4_min"
        else (values - 8) * halves(512)
    )
    return scaled.flatten(2).flatten(0, 1)


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise ValueError(f"no packed format {format!r}; there are {', '.join(FORMATS)}")


def _pad(rows: Tensor, unit: int, value: int) -> Tensor:
    """Pad rows to whole panels and inputs to a multiple of `unit`."""
    return functional.pad(rows, (0, -rows.shape[1] % unit, 0, -rows.shape[0] % PANEL), value=value)


def _interleave(words: Tensor) -> Tensor:
    """(rows, words) int32 -> (panels, bytes): word k of 16 rows, then word k+1."""
    turned = words.unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()
    return turned.view(torch.uint8).flatten(1)


def _separate(data: Tensor) -> Tensor:
    """(panels, bytes) -> (panels, 16, words) int32."""
    turned = data.contiguous().view(torch.int32).unflatten(1, (-1, PANEL)).transpose(1, 2)
    return turned.clone(
        memory_format=torch.contiguous_format
    )  # strides fit for a view also of one word


def _in_slices(rows: Tensor, format: str, panels: Callable[[slice], Tensor]) -> Tensor:
    count = -(-rows.shape[0] // PANEL)
    shape = (count, panel_bytes(format, rows.shape[1]))
    on_cpu = rows.device.type == "cpu"
    out = room(shape) if on_cpu else torch.empty(*shape, dtype=torch.uint8, device=rows.device)
    for first in range(0, rows.shape[0], _SLICE):
        out[first // PANEL : (first + _SLICE) // PANEL] = panels(slice(first, first + _SLICE))
    return out
