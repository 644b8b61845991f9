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

        head = self.own_head(format)
        return model_bytes(self.config, self.dtype, format, head, self.screen)

    def own_head(self, format: str | None) -> str | None:
        """Return the format of the head where it is another than that of the rest."""
        return self.head if format == self.format else None


def spec_of(source: ModelSource, place: str | None = None) -> ModelSpec:
    """Find out what `griffin.load` would make of a model; of a released one the shape is enough.

    place: the device that it is for, which need not be here; the source's if None, which must.
    """
    import torch

    from griffin import checkpoints
    from griffin.checkpoints.model_names import resolve
    from griffin.cli.shared.devices import place_of
    from griffin.model import GriffinConfig
    from griffin.model.config import PRESETS
    from griffin.quant import fastest_layout, get_format
    from griffin.quant.screen import FORMAT, check_screen

    name, quantize, place = source.model, source.quantize, place or place_of(source.device)

    def screened(format: str | None, stored: str | None = None) -> str | None:
        if source.screen:
            check_screen(torch.device(place), format is not None)
            return FORMAT
        return stored if torch.device(place).type == "cpu" else None

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
        return ModelSpec(f"the shape {shape}", config, dtype, format, screen=screened(format))
    checkpoint = source.checkpoint()
    dtype = checkpoints.parse_dtype(source.dtype or checkpoint.own_dtype)
    packed = checkpoint.quantization
    if packed is None:
        format = quantize or fastest_layout(dtype, place)
        return ModelSpec(name, checkpoint.config, dtype, format, screen=screened(format))
    if quantize is not None:
        raise ValueError(f"{name} is {packed.format} already; leave --quantize out")
    screen = screened(packed.format, packed.screen)
    return ModelSpec(name, checkpoint.config, dtype, packed.format, packed.head, screen)
