"""A run whose rows are split over ranks is the run of one rank, and goes on as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharding import whole_weights
from tests.support.ranks import on_ranks

Build = Callable[..., Recipe]


def steps(ours: Trainer, count: int) -> dict[str, Any]:
    """Do some steps, and return what they have come to."""
    losses = [ours.step()["loss"] for _ in range(count)]
    weights = {name: w.clone() for name, w in whole_weights(ours.model, ours.ranks)}
    return {"losses": losses, "weights": weights, "bits": ours.validate().worth}


def work(ranks: Ranks, folder: Path, recipes: dict[str, Recipe]) -> None:
    """Run one of four ranks: six steps at once; three, saved, and three more, as 2 x 2 and as 4."""
    found = {}

    def train(name: str, out: str, count: int, save: bool = False) -> None:
        quiet = Reporter(quiet=True)
        with Trainer(recipes[name], folder / out, quiet, ranks=ranks) as ours:
            first = ours.progress.step
            found[out, name, first] = steps(ours, count)
            if save:
                ours.save()

    train("pairs", "whole", 6)
    train("pairs", "parts", 3, save=True)
    train("pairs", "parts", 3)
    train("four", "parts", 3)
    train("carried", "carried", 6)
    train("carried", "carried parts", 3, save=True)
    train("carried", "carried parts", 3)
    if ranks.is_writer:
        torch.save(found, folder / "found")


@pytest.mark.thorough
def test_its_steps_are_those_of_one_rank(recipe: Build, tmp_path: Path) -> None:
    recipes = {
        "pairs": recipe(sequence_ranks=2),
        "four": recipe(sequence_ranks=4, checkpoint="blocks"),
        "carried": recipe(sequence_ranks=2, carry=True),
    }
    on_ranks(4, work, tmp_path, recipes)
    found = torch.load(tmp_path / "found")

    alone = go_on(recipe(), tmp_path / "alone", 6)
    close(found["whole", "pairs", 0], alone)
    same(found["parts", "pairs", 3]["weights"], found["whole", "pairs", 0]["weights"])
    # On from step 3 with another number of ranks, all of them and one.
    close(found["parts", "four", 3], alone, 3)
    close(go_on(recipe(), tmp_path / "parts", 3), alone, 3)

    carried = go_on(recipe(carry=True), tmp_path / "carried alone", 6)
    whole = found["carried", "carried", 0]
    assert carried["losses"] != pytest.approx(alone["losses"], rel=1e-3)
    close(whole, carried)
    same(found["carried parts", "carried", 3]["weights"], whole["weights"])
    close(go_on(recipe(carry=True), tmp_path / "carried parts", 3), carried, 3)


def go_on(recipe: Recipe, out: Path, count: int) -> dict[str, Any]:
    """Do the last steps of six in one process."""
    with Trainer(recipe, out, Reporter(quiet=True)) as ours:
        assert ours.progress.step == 6 - count
        return steps(ours, count)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def close(ours: dict[str, Any], alone: dict[str, Any], first: int = 0) -> None:
    assert ours["losses"] == pytest.approx(alone["losses"][first:], rel=1e-5)
    assert ours["bits"] == pytest.approx(alone["bits"], rel=1e-5)
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(ours["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_ranks_that_cannot_share_a_row_are_refused(recipe: Build, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sequence_ranks is 2: start a multiple of 2 ranks"):
        Trainer(recipe(sequence_ranks=2), tmp_path / "run", Reporter(quiet=True))
    with pytest.raises(ValueError, match=r"length is 24, too short .*sequence_ranks = 25"):
        recipe(sequence_ranks=25)
    uneven = r"rows is 3, which 4 ranks \(train\.sequence_ranks 2 together\) cannot share"
    with pytest.raises(ValueError, match=uneven):  # before documents are read, hours perhaps
        Trainer(recipe(rows=3, sequence_ranks=2), tmp_path / "run", ranks=Ranks(0, 4))
    assert not (tmp_path / "run").exists()
