"""Which class runs which method."""

from __future__ import annotations

from griffin.adapters.adapter import expected
from griffin.train.recipe import ONLINE, Recipe
from griffin.tune.export import TunedRun
from griffin.tune.learner import lora_config


def run_of(recipe: Recipe) -> type[TunedRun]:
    """Return the class of runs for a recipe with [tune]; ValueError for an adapter that its model
    cannot have."""
    assert recipe.tune is not None
    method = recipe.tune.method
    if recipe.tune.trains == "lora":
        expected(lora_config(recipe.tune), recipe.model)
    if method in ONLINE:
        from griffin.tune.online import OnlineTrainer

        return OnlineTrainer
    if method == "dpo":
        from griffin.tune.preference import PreferenceTrainer

        return PreferenceTrainer
    from griffin.tune.supervised import Tuner

    return Tuner
