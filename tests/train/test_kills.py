"""A run that is killed with -9, again and again, goes on by itself and ends with the same bits."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from griffin.train.recipe import Recipe
from tests.support.killed_run import GONE, Kind, moments, run

# Seconds and process ids stand in them; of the first two the rest is compared.
TIMED = ("log.jsonl", "results.json", "progress.json", "run.lock")


def content(path: Path) -> Any:
    """Return a file's bytes; a tensor file's one by one, for its header has no fixed order, and
    what its metadata says."""
    if path.suffix not in (".safetensors", ".state"):
        return path.read_bytes()
    with safe_open(path, "pt") as file:
        said = file.metadata()
    tensors = {
        name: tensor.flatten().view(torch.uint8).numpy().tobytes()
        for name, tensor in load_file(path).items()
    }
    return said, tensors


def left(out: Path) -> dict[str, Any]:
    """Return all that a run leaves: log, results, the bytes of its model and checkpoints."""
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for entry in log:
        del entry["seconds"], entry["tokens_per_second"], entry["peak_bytes"]
        entry.pop("matrix_share", None)
    results = json.loads((out / "results.json").read_text())
    del results["training"]["seconds"]
    for place in ("model", "adapter", "full", "state"):
        results.pop(place, None)
    files = {
        path.relative_to(out).as_posix(): content(path)
        for path in out.rglob("*")
        if path.is_file() and path.name not in TIMED
    }
    return {"log": log, "results": results, **files}


def kill(
    values: dict[str, Any],
    folder: Path,
    times: int,
    seed: int,
    world: int = 1,
    preparing: bool = False,
) -> None:
    """Kill runs until it was done `times` times; each must end as one that was left alone.

    preparing: before their first step alone. A run is killed again and again until it gets through,
    so some of the kills hit one that goes on with what others left.
    """
    kinds: tuple[Kind, Kind] = ("files", "calls")
    known = {kind: moments(values, folder / f"whole-{kind}", kind, world) for kind in kinds}
    total = {kind: found[0 if preparing else 1] for kind, found in known.items()}
    expected = left(folder / "whole-files")
    chance, killed, number = random.Random(seed), 0, 0
    while killed < times:
        out = folder / f"run-{number}"
        number += 1
        while killed < times or not (out / "results.json").exists():
            kind = chance.choice(kinds)
            end = chance.randint(1, total[kind]) if killed < times else None
            codes = run(values, out, kind, end, world, preparing=preparing)
            if codes == [0] * world:
                break
            assert codes == [GONE] * (world - 1) + [-9], (codes, kind, end, out)
            killed += 1
        found = left(out)
        assert found.keys() == expected.keys()
        for name, whole in expected.items():
            assert found[name] == whole, (out, name)


@pytest.fixture
def values(recipe: Callable[..., Recipe]) -> dict[str, Any]:
    """Save after every step, so that saving and pruning are as likely as stepping."""
    return recipe(steps=5, checkpoint_minutes=1e-9, eval_tokens=500, accumulation=2).to_dict()


def test_four_kills(values: dict[str, Any], tmp_path: Path) -> None:
    kill(values, tmp_path, 4, seed=0)


@pytest.mark.slow
def test_a_hundred_kills(values: dict[str, Any], tmp_path: Path) -> None:
    kill(values, tmp_path, 100, seed=1)


@pytest.mark.slow
def test_a_hundred_kills_while_data_is_prepared(values: dict[str, Any], tmp_path: Path) -> None:
    kill(values, tmp_path, 100, seed=3, preparing=True)


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_other(values: dict[str, Any], tmp_path: Path) -> None:
    kill(values, tmp_path, 10, seed=2, world=2)
