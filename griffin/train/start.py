"""The weights that a run begins with: random ones, or a checkpoint's."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin import checkpoints
from griffin.model import Griffin
from griffin.model.init import init_parameter
from griffin.train.recipe import Recipe
from griffin.train.scale.sharding import fill


def fill_model(model: Griffin, recipe: Recipe, device: torch.device, *, drawn: bool = True) -> None:
    """Give a recipe's model, which is on the meta device and may be split, its weights.

    They depend on the recipe's seed alone, or are those of the checkpoint it names, of any layout,
    read tensor by tensor: by every rank, which keeps its part of each. drawn: False leaves memory
    as it is, for weights that are about to come from a run's own checkpoint. Raises ValueError for
    a quantized checkpoint, and for one with weights that are not finite.
    """
    if not drawn:
        model.to_empty(device=device)
    elif recipe.base:
        _read(model, recipe.open_base(), device)
    else:
        random, config = torch.Generator().manual_seed(recipe.train.seed), model.config
        fill(model, device, lambda name, out: init_parameter(name, out, config, random))


def check_whole(source: checkpoints.Checkpoint) -> None:
    """Raise ValueError for a quantized checkpoint: its weights cannot be trained."""
    if (packed := source.quantization) is not None:
        raise ValueError(
            f"{source.folder} is quantized to {packed.format}, which cannot be trained; start from"
            " the original weights"
        )


def _read(model: Griffin, source: checkpoints.Checkpoint, device: torch.device) -> None:
    check_whole(source)
    assert {name for name, _ in model.named_parameters()} == set(source.names())

    def copy(name: str, out: Tensor) -> None:
        tensor = source.read_apart(name)
        source.check_finite(name, tensor)
        out.copy_(tensor)

    fill(model, device, copy)
    source.release()
