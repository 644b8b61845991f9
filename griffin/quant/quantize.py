"""A model's layers replaced by packed ones."""

from __future__ import annotations

import torch

from griffin.model import Griffin
from griffin.model.packed import install, packable, packed_format
from griffin.quant.formats import get_format


@torch.no_grad()
def quantize_model(model: Griffin, format: str, head: str | None = None) -> Griffin:
    """Round every Linear, the embedding and the head of `model` to a format of FORMATS, in place.

    head: another format for the head, which is the embedding too where the two are tied.
    RG-LRU parameters, norms, the convolution and biases stay as they are. One matrix at a time: the
    rest of the memory needed is small. Returns the model. Raises ValueError for an unknown format
    and for a model that is quantized already.
    """
    formats = {name: get_format(format) for name in packable(model)}
    formats[head_layer(model)] = get_format(head or format)
    refuse_packed(model)
    for name, chosen in formats.items():
        weight = model.get_parameter(name + ".weight").detach()
        install(model, name, chosen.quantize(weight), model.dtype)
    return model


def head_layer(model: Griffin) -> str:
    """Return the name of the layer that gives the logits."""
    return "model.embed_tokens" if model.config.tie_embeddings else "lm_head"


def refuse_packed(model: Griffin) -> None:
    """Raise ValueError if the model is quantized: rounding what was rounded only loses."""
    if found := packed_format(model):
        raise ValueError(f"the model is {found} already; quantize the original weights instead")
