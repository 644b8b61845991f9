"""Which class runs which method."""

from __future__ import annotations

from griffin.train.recipe import ONLINE, Recipe
from griffin.tune.export import TunedRun


def run_of(recipe: Recipe) -> type[TunedRun]:
    """Return the class of runs for a recipe with [tune]."""
    assert recipe.tune is not None
    method = recipe.tune.method
    if method in ONLINE or method == "dpo":
        raise ValueError(f"tune.method = {method!r} is not there yet")
    from griffin.tune.supervised import Tuner

    return Tuner
