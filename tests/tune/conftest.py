"""A toy model that talks, chats to tune it on, and a recipe that does in a second."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.checkpoints import save_model
from griffin.train.data.bpe import save_bpe, train_bpe
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.tune.export import TunedRun
from griffin.tune.methods import run_of
from tests.support.toy_checkpoints import DEEPMIND
from tests.support.toy_models import make_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model in float32 with a tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "toy"
    save_model(make_model(DEEPMIND.replace(vocab_size=512)), folder)
    save_bpe(train_bpe([Path(json.__file__).read_text()], 480), folder)
    return folder


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty conversations of one or two questions."""
    chance, lines = random.Random(1), list[str]()
    for _ in range(40):
        messages = list[dict[str, str]]()
        for _ in range(chance.randrange(1, 3)):
            a, b = chance.randrange(10), chance.randrange(10)
            messages.append({"role": "user", "content": f"{a} + {b}?"})
            messages.append({"role": "assistant", "content": f"{a + b}."})
        lines.append(json.dumps({"messages": messages}) + "\n")
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.fixture
def recipe(base: Path, chats: Path) -> Callable[..., Recipe]:
    """Build the toy recipe: `data` is read, keywords beside it change [train], `tune` is [tune]."""

    def build(tune: dict[str, Any], data: Path = chats, **train: Any) -> Recipe:
        values = {"steps": 4, "rows": 2, "length": 48, "warmup_steps": 1, "learning_rate": 1e-2}
        return Recipe.from_dict(
            {
                "from": str(base),
                "data": {
                    "packing": "best-fit",
                    "held_out": 0.2,
                    "source": [{"name": "data", "path": str(data)}],
                },
                "train": values | {"log_every": 1, "eval_every": 99, **train},
                "tune": tune,
            }
        )

    return build


@pytest.fixture
def run(recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Any]:
    """Build a silent run of the toy recipe in a folder of the given name; arguments of `recipe`.

    One that had the folder before leaves it, as the process that ended would.
    """
    before: dict[str, TunedRun] = {}

    def build(name: str = "run", **given: Any) -> Any:
        if name in before:
            before[name].close()
        planned = recipe(**given)
        before[name] = run_of(planned)(planned, tmp_path / name, Reporter(quiet=True))
        return before[name]

    return build
