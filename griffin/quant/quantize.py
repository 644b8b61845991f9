"""A model's layers replaced by packed ones."""

from __future__ import annotations

import torch

from griffin.model import Griffin
from griffin.model.packed import install, packable, packed_format
from griffin.quant.formats import get_format


@torch.no_grad()
def quantize_model(model: Griffin, format: str) -> Griffin:
    """Round every Linear, the embedding and the head of `model` to a format of FORMATS, in place.

    RG-LRU parameters, norms, the convolution and biases stay as they are. One matrix at a time: the
    rest of the memory needed is small. Returns the model. Raises ValueError for an unknown format
    and for a model that is quantized already.
    """
    chosen = get_format(format)
    refuse_packed(model)
    for name in packable(model):
        install(
            model,
            name,
            chosen.quantize(model.get_parameter(name + ".weight").detach()),
            model.dtype,
        )
    return model


def refuse_packed(model: Griffin) -> None:
    """Raise ValueError if the model is quantized: rounding what was rounded only loses."""
    if found := packed_format(model):
        raise ValueError(f"the model is {found} already; quantize the original weights instead")
