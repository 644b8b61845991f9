"""How many steps a budget in epochs is, before there is a run: its data is read and let go."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from griffin.train.data.mixture import Mixture
from griffin.train.data.prepare import RunData, prepare_data
from griffin.train.folder import RunFolder
from griffin.train.recipe import ONLINE, Recipe
from griffin.train.report import Reporter
from griffin.tune.pairs import Pairs
from griffin.tune.prompts import Prompts


class RunBudget(NamedTuple):
    """Steps of a run, and the tokens that a step reads: of rewards, if all answers are as long as
    they may be."""

    steps: int
    tokens_per_step: int


def count_budget(
    recipe: Recipe, reporter: Reporter, *, workers: int = 1, skip_bad: bool = False
) -> RunBudget:
    """Return the budget of a recipe with [tune] in steps, as its run would have it.

    The data is prepared as for a run, in a folder that is gone afterwards. workers, skip_bad, and
    errors: as for `prepare_data`, and of a method that is left nothing to read.
    """
    with tempfile.TemporaryDirectory(prefix="griffin-plan-") as place:
        folder = RunFolder(Path(place), say=reporter.say)
        try:
            with folder.claimed(recipe) as claim:
                data = prepare_data(
                    recipe, Path(place), reporter, claim, workers=workers, skip_bad=skip_bad
                )
                return _budget(recipe, data)
        finally:
            folder.close()


def _budget(recipe: Recipe, data: RunData) -> RunBudget:
    tune, train, sources = recipe.tune, recipe.train, data.sources
    assert tune is not None
    if tune.method in ONLINE:
        most = train.length - tune.answer_tokens
        given = [(each.train, each.train_rows) for each in sources]
        prompts = Prompts(given, train.seed, most)
        steps = train.steps or max(1, int(train.epochs * len(prompts) / tune.prompts))
        read = tune.prompts * prompts.tokens // len(prompts)
        return RunBudget(steps, read + drawn_answers(recipe) * tune.answer_tokens)
    if tune.method == "dpo":
        pairs = Pairs([each.train for each in sources], train.seed, train.length)
        if not len(pairs):
            raise ValueError(
                f"there is no pair to train on of which both answers, with their prompt, have at"
                f" most train.length = {train.length} tokens: raise it, or add pairs"
            )
        steps = train.in_steps(int(train.epochs * len(pairs))).total_steps
        return RunBudget(steps, train.rows * train.accumulation * pairs.tokens // len(pairs))
    _, plan = Mixture.of(recipe, {source.name: source.train for source in sources})
    return RunBudget(plan.total_steps, plan.tokens_per_step)


def drawn_answers(recipe: Recipe) -> int:
    """Return how many answers a step draws, those of J-BOND's anchor among them; 0 if none."""
    tune = recipe.tune
    assert tune is not None
    if tune.method not in ONLINE:
        return 0
    return tune.prompts * (3 if tune.method == "jbond" else tune.answers)
