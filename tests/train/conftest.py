"""A corpus of small programs and a recipe that trains on it in a second."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter

torch.set_num_threads(1)

MODEL = {
    "vocab_size": 480,
    "width": 16,
    "mlp_width": 24,
    "lru_width": 16,
    "num_heads": 2,
    "num_gate_blocks": 2,
    "block_types": ["recurrent", "attention"],
    "attention_window_size": 8,
    "logits_soft_cap": 20.0,
}


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small files, of which a hash of the path holds some out at 0.2."""
    root = tmp_path_factory.mktemp("corpus")
    chance = random.Random(0)
    for number in range(40):
        lines = [f"def f{number}(x):"]
        lines += [
            f"    x = x + {chance.randrange(10)}  # step" for _ in range(chance.randrange(1, 12))
        ]
        (root / f"part{number % 4}").mkdir(exist_ok=True)
        file = root / f"part{number % 4}" / f"file{number}.py"
        file.write_text("\n".join([*lines, "    return x"]) + "\n")
    return root


@pytest.fixture
def recipe(corpus_folder: Path) -> Callable[..., Recipe]:
    """Build the toy recipe with some values of [train] changed, and of [data]."""

    def build(data: Mapping[str, Any] = MappingProxyType({}), **train: Any) -> Recipe:
        values = {
            "steps": 6,
            "rows": 2,
            "length": 24,
            "warmup_steps": 2,
            "log_every": 1,
            "eval_every": 3,
        }
        return Recipe.from_dict(
            {
                "model": MODEL,
                "data": {
                    "source": "files",
                    "root": str(corpus_folder),
                    "held_out": 0.2,
                    **data,
                },
                "train": values | train,
            }
        )

    return build


@pytest.fixture
def trainer(recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Trainer]:
    """Build a silent trainer for the toy recipe, in a folder of the given name.

    One that had the folder before leaves it, as the process that ended would.
    """
    before: dict[str, Trainer] = {}

    def build(name: str = "run", extend: bool = False, **train: Any) -> Trainer:
        if name in before:
            before[name].close()
        ours = Trainer(recipe(**train), tmp_path / name, Reporter(quiet=True), extend=extend)
        before[name] = ours
        return ours

    return build
