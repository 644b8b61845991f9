"""What loading a model would make of it, told without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from griffin.cli.shared.model_source import ModelSource
    from griffin.model import GriffinConfig


class ModelSpec(NamedTuple):
    """A name for people, the shape, the type, the packed format of the matrices, that of the
    head where it has its own, and that of a preview of the head."""

    name: str
    config: GriffinConfig
    dtype: torch.dtype
    format: str | None
    head: str | None = None
    screen: str | None = None

    def weight_bytes(self, format: str | None) -> int:
        """Return the bytes of the weights in a format, the head in its own where it has one."""
        from griffin.capacity import model_bytes

        own = (self.head, self.screen) if format == self.format else ()
        return model_bytes(self.config, self.dtype, format, *own)


def spec_of(source: ModelSource, place: str | None = None) -> ModelSpec:
    """Find out what `griffin.load` would make of a model; of a released one the shape is enough.

    place: the device that it is for, which need not be here; the source's if None, which must.
    """
    from griffin import checkpoints
    from griffin.checkpoints.model_names import resolve
    from griffin.cli.shared.devices import place_of
    from griffin.model import GriffinConfig
    from griffin.model.config import PRESETS
    from griffin.quant import fastest_layout, get_format

    name, quantize, place = source.model, source.quantize, place or place_of(source.device)
    if quantize is not None:
        get_format(quantize)  # ValueError for a name that is none
    here = isinstance(found := resolve(name), Path) or Path(found).expanduser().exists()
    shape = name.rpartition("/")[2].removesuffix("-it")
    if not here and (shape in PRESETS or "/" not in name):
        try:
            config = GriffinConfig.preset(shape)
        except ValueError as error:
            raise ValueError(f"{name} is neither here nor a released shape: {error}") from None
        dtype = checkpoints.parse_dtype(source.dtype or "bfloat16")
        format = quantize or fastest_layout(dtype, place)
        return ModelSpec(f"the shape {shape}", config, dtype, format)
    checkpoint = source.checkpoint()
    dtype = checkpoints.parse_dtype(source.dtype or checkpoint.own_dtype)
    if checkpoint.quantization is not None:
        if quantize is not None:
            raise ValueError(
                f"{name} is {checkpoint.quantization.format} already; leave --quantize out"
            )
        packed = checkpoint.quantization
        return ModelSpec(name, checkpoint.config, dtype, packed.format, packed.head, packed.screen)
    return ModelSpec(name, checkpoint.config, dtype, quantize or fastest_layout(dtype, place))
