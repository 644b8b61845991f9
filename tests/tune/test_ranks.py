"""On bases in 8 and 4 bits two ranks find the gradients that one finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharding import put
from griffin.tune.supervised import Tuner
from tests.support.ranks import on_ranks

LEARNED: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "rank": 3},
    "whole": {"method": "lora", "rank": 3, "whole": ["rg_lru"]},
    "state": {"method": "state", "keys": 3},
}
CASES = [(base, name) for base in ("bfloat16", "int8", "int4") for name in LEARNED]


def _gradients(ranks: Ranks, recipe: Recipe, out: Path) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of the first step and its gradients, none of them zero."""
    with Tuner(recipe, out, Reporter(quiet=True), ranks=ranks) as ours:
        random = torch.Generator().manual_seed(0)
        for name, parameter in ours.learner.named_parameters():
            if name.endswith("lora_B"):  # which begin as zeros, behind which A learns nothing
                put(parameter, 0.1 * torch.randn(parameter.shape, generator=random))
        loss = ours.step()["loss"]
        found = dict[str, Tensor]()
        for name, parameter in ours.learner.named_parameters():
            if parameter.requires_grad:
                assert parameter.dtype == torch.float32, name  # in bfloat16 it would stand still
                gradient: Any = parameter.grad
                found[name] = gradient if ranks.mesh is None else gradient.full_tensor()
        return loss, found


def _two(ranks: Ranks, recipes: list[Recipe], folder: Path) -> None:
    for number, recipe in enumerate(recipes):
        found = _gradients(ranks, recipe, folder / f"two-{number}")
        if ranks.is_writer:
            torch.save(found, folder / f"two-{number}.pt")


@pytest.mark.thorough
def test_gradients_on_a_packed_base(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Of adapters, gates and states, each rank with rows of its own; to what sums round."""
    recipes = [
        recipe(tune=LEARNED[name] | {"base": base}, rows=4, accumulation=2, clip=0.0)
        for base, name in CASES
    ]
    on_ranks(2, _two, recipes, tmp_path)
    for number, planned in enumerate(recipes):
        loss, wanted = _gradients(Ranks(), planned, tmp_path / f"one-{number}")
        there, found = torch.load(tmp_path / f"two-{number}.pt")
        assert there == pytest.approx(loss, rel=1e-6), CASES[number]
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            assert gradient.any(), (CASES[number], name)
            error = float((found[name] - gradient).abs().max() / gradient.abs().max())
            assert error < 2e-5, (CASES[number], name, error)
