"""What a tuned run optimises: a checkpoint's model, with all its weights or an adapter alone."""

from __future__ import annotations

import torch

from griffin.adapters import Adapter, LoraConfig, adapt
from griffin.adapters.config import TARGETS
from griffin.checkpoints import Checkpoint, load_model, parse_dtype
from griffin.model import Griffin, TunedState
from griffin.quant import FORMATS, fastest_layout
from griffin.train.recipe import Recipe, TuneRecipe
from griffin.train.start import fill_model
from griffin.tune.state import StateLearner

ADAPTER = "tuned"  # what the adapter in training is called in its model


def lora_config(tune: TuneRecipe) -> LoraConfig:
    """Return the adapter that a recipe trains; ValueError for one that cannot be."""
    return LoraConfig(
        rank=tune.rank,
        alpha=tune.alpha,
        rslora=tune.rslora,
        dropout=tune.dropout,
        targets=tune.targets or TARGETS,
        whole=tune.whole,
    )


def make_learner(recipe: Recipe, device: torch.device, *, drawn: bool = True) -> Griffin:
    """Return the model of a recipe with [tune]; gradients are for what is trained, and no other.

    An adapter is float32 and changes nothing yet; its A follows from the recipe's seed. The base
    has the type that `tune.base` asks for, quantized while it is read where that is int8 or int4,
    and stays as it is. drawn: False leaves memory as it is where all weights are trained, for
    those that are about to come from a checkpoint of the run.
    Raises ValueError for a base that is not finite, and where all weights are trained for one that
    is quantized.
    """
    tune = recipe.tune
    assert tune is not None
    if tune.trains == "full":
        with torch.device("meta"):
            model = Griffin(recipe.model).to(getattr(torch, recipe.train.weights))
        fill_model(model, recipe, device, drawn=drawn)
    else:
        model = load_base(recipe, device)
        if tune.trains == "lora":
            config = lora_config(tune)
            random = torch.Generator().manual_seed(recipe.train.seed)
            adapter = Adapter.new(ADAPTER, config, recipe.model, random)
            adapt(model, adapter, torch.float32, train=True)
    model.keep_every = recipe.train.keep_every
    return model


def begin_state(recipe: Recipe, model: Griffin, bos: int) -> StateLearner:
    """Return the state that a recipe trains before it has learned: that after `tune.keys` times
    BOS, which with one key is none at all."""
    assert recipe.tune is not None
    ids, weights = [bos] * recipe.tune.keys, recipe.open_base().digest()
    return StateLearner(TunedState.begin(model, ids, weights=weights, name=recipe.base))


def load_base(recipe: Recipe, device: torch.device) -> Griffin:
    """Load the frozen model under what is trained, in the type that the recipe asks for.

    bfloat16 on the CPU is laid out for the kernels, as when it answers: torch's own products of
    bfloat16 take ten times as long where the machine has no instruction for them.
    """
    assert recipe.tune is not None
    tune, source = recipe.tune, recipe.open_base()
    dtype, layout = base_dtype(tune, source), base_layout(tune, source, device)
    return load_model(source, dtype, device, quantize=layout, screen=False).requires_grad_(False)


def base_dtype(tune: TuneRecipe, source: Checkpoint) -> torch.dtype:
    """Return the type in which the frozen model computes, packed or not."""
    return source.own_dtype if tune.base in ("", *FORMATS) else parse_dtype(tune.base)


def base_layout(tune: TuneRecipe, source: Checkpoint, device: torch.device) -> str | None:
    """Return the format that the frozen matrices are packed in while they are read; None leaves
    them as they are stored."""
    if tune.base in FORMATS:
        return tune.base
    return None if source.quantization else fastest_layout(base_dtype(tune, source), device)
