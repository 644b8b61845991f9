"""AdamW with the paper's exceptions, and the learning rate's course."""

from __future__ import annotations

import math

import torch
from torch import nn

from griffin.train.checkpoint import trained
from griffin.train.recipe import TrainRecipe
from griffin.train.stochastic import StochasticAdamW


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Say whether weight decay applies to a parameter.

    It does to matrices and to the convolution's taps; not to RG-LRU parameters (RecurrentGemma,
    arXiv:2404.07839), nor to norms, biases and embeddings, as in the authors' fine-tuning code.
    """
    if ".rg_lru." in name or name.endswith("embed_tokens.weight"):
        return False
    return parameter.ndim >= 2


def make_optimizer(model: nn.Module, recipe: TrainRecipe) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters, in groups with and without decay.

    It is torch's, fused; for bfloat16 weights the one that rounds by lot.
    """
    named = trained(model)
    groups = [
        {"params": [each for each in named if decays(*each)], "weight_decay": recipe.weight_decay},
        {"params": [each for each in named if not decays(*each)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate, betas, eps = recipe.learning_rate, (recipe.beta1, recipe.beta2), recipe.epsilon
    if recipe.weights == "bfloat16":
        return StochasticAdamW(groups, lr=rate, betas=betas, eps=eps, seed=recipe.seed)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps, fused=True)


def learning_rate(step: int, recipe: TrainRecipe) -> float:
    """Return the rate of a step, counted from 0: a line up to the peak, then as `schedule` says.

    The last step's rate is `final_ratio` of the peak, unless the schedule is "constant". Where
    stages begin courses of their own, each is as a run of its steps.
    """
    if recipe.stage:
        first, recipe = recipe.course(step)
        step -= first
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.learning_rate
    falling = recipe.total_steps - recipe.warmup_steps
    if recipe.schedule == "wsd":
        # The last stable step is the one that the line begins at.
        falling = min(falling, recipe.decay_steps + 1)
    begun = recipe.total_steps - falling
    progress = min(1.0, max(0, step - begun) / max(1, falling - 1))
    left = 1 - progress
    if recipe.schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * progress))
    floor = recipe.final_ratio
    return recipe.learning_rate * (floor + (1 - floor) * left)
