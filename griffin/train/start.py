"""The weights that a run begins with: random ones, or a checkpoint's."""

from __future__ import annotations

import torch

from griffin import checkpoints
from griffin.model import Griffin
from griffin.model.init import init_weights
from griffin.train.recipe import Recipe


def starting_model(recipe: Recipe, *, filled: bool = True) -> Griffin:
    """Return a recipe's model on the CPU, its weights float32.

    They depend on the recipe's seed alone, or are those of the checkpoint it names, of any layout,
    read tensor by tensor. filled: False leaves memory as it is, for weights that are about to come
    from a run's own checkpoint. Raises ValueError for a quantized checkpoint, and for one with
    weights that are not finite.
    """
    with torch.device("meta"):
        model = Griffin(recipe.model)
    model.to_empty(device="cpu")
    if not filled:
        return model
    if not recipe.base:
        init_weights(model, model.config, torch.Generator().manual_seed(recipe.train.seed))
        return model
    _fill(model, recipe.open_base())
    return model


@torch.no_grad()
def _fill(model: Griffin, source: checkpoints.Checkpoint) -> None:
    if (packed := source.quantization) is not None:
        raise ValueError(
            f"{source.folder} is quantized to {packed.format}, which cannot be trained; start from"
            " the original weights"
        )
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(source.names())
    for name in source.names():
        tensor = source.read_apart(name)
        source.check_finite(name, tensor)
        parameters[name].copy_(tensor)
    source.release()
