"""A tuned run that is killed with -9, again and again, ends with the bits of one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from griffin.train.recipe import Recipe
from tests.train.test_kills import kill

_ALL: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "rank": 2, "dropout": 0.1},
    "state": {"method": "state", "keys": 2},
    "dpo": {"method": "dpo", "rank": 2},
    "jbond": {"method": "jbond", "rank": 2, "prompts": 2, "answer_tokens": 4},
    "grpo": {"method": "grpo", "rank": 2, "prompts": 2, "answers": 2, "answer_tokens": 4},
    "rloo": {"method": "rloo", "rank": 2, "prompts": 2, "answers": 2, "answer_tokens": 4},
}


@pytest.fixture
def values(recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Build the plain recipe of a method that saves after every step."""

    def build(name: str) -> dict[str, Any]:
        tune, data = dict(_ALL[name]), {}
        rows: list[dict[str, Any]] = []
        if name == "dpo":
            rows = [
                {"prompt": f"{n}?", "chosen": f" {n}.", "rejected": f" {n + 1}!"} for n in range(20)
            ]
        elif name in ("jbond", "grpo", "rloo"):
            reward = tmp_path / "reward.py"
            reward.write_text("def reward(prompt, answer):\n    return float(len(answer))\n")
            tune["reward"] = f"{reward}:reward"
            rows = [{"prompt": f"{n}?"} for n in range(20)]
        if rows:
            file = tmp_path / "rows.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            data = {"data": file}
        return recipe(
            tune=tune,
            **data,
            steps=3,
            checkpoint_minutes=1e-9,
            eval_every=2,
            eval_tokens=300,
        ).to_dict()

    return build


def test_two_kills(values: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    kill(values("lora"), tmp_path, 2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", _ALL)
def test_thirty_kills(name: str, values: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    kill(values(name), tmp_path, 30, seed=1)
