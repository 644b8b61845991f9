"""The recipe that `griffin finetune` follows where nothing else is said, method by method."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from griffin import checkpoints
from griffin.model import Griffin

# Above so many weights a forward pass keeps the blocks' inputs alone, and frozen weights matter.
_LARGE = 300_000_000

_TRAIN: dict[str, Any] = {
    "epochs": 3.0,
    "rows": 1,
    "length": 1024,
    "accumulation": 1,
    "warmup_steps": 10,
    "weight_decay": 0.0,
    "beta2": 0.99,
    "log_every": 1,
    "eval_every": 50,
}
# Rates are of the size that others train these parameters at; sweep them for a model of your own.
_OF_METHOD: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 2e-5, "weight_decay": 0.01},
    "lora": {"learning_rate": 2e-4},
    "state": {"learning_rate": 1e-1, "epochs": 5.0, "warmup_steps": 5},
    "dpo": {"learning_rate": 2e-5, "epochs": 1.0, "rows": 4, "accumulation": 2},
    "jbond": {"learning_rate": 1e-4, "warmup_steps": 100, "steps": 500, "schedule": "constant"},
    "grpo": {"learning_rate": 1e-4, "steps": 500, "schedule": "constant"},
    "rloo": {"learning_rate": 1e-4, "steps": 500, "schedule": "constant"},
}
_TUNE: dict[str, dict[str, Any]] = {
    "jbond": {"prompts": 128, "answers": 1},
    "grpo": {"prompts": 16, "answers": 8},
    "rloo": {"prompts": 64, "answers": 2},
}


def default_recipe(
    model: str,
    method: str,
    data: Sequence[Path],
    reward: str = "",
) -> dict[str, Any]:
    """Return the plain values of a method's recipe, for `Recipe.from_dict`.

    model: the checkpoint, as `griffin.load` takes it; its headers are read, and its size decides
    what is kept for the backward pass. data: files, a source each.
    """
    with torch.device("meta"):
        shape = Griffin(checkpoints.open(model).config)
    train = _TRAIN | _OF_METHOD.get(method, {})
    if "steps" in train:
        del train["epochs"]
        train["rows"] = 16
    if sum(each.numel() for each in shape.parameters()) > _LARGE:
        train["checkpoint"] = "blocks"
        if method == "full":
            train |= {"dtype": "bfloat16", "weights": "bfloat16"}
    tune = {"method": method, **_TUNE.get(method, {})}
    if reward:  # a file from where we are, as the data's, or the name of a function
        tune["reward"] = str(Path(reward).expanduser().absolute()) if ":" in reward else reward
    return {
        "from": model,
        "data": {
            "packing": "best-fit",
            "held_out": 0.1,
            "source": [
                {"name": _name(path, number), "path": str(path.expanduser().resolve())}
                for number, path in enumerate(data, 1)
            ],
        },
        "train": train,
        "tune": tune,
    }


def as_toml(values: dict[str, Any]) -> str:
    """Return a recipe's plain values as the TOML file that they would be read from."""
    lines = list[str]()
    for key, value in values.items():
        if not isinstance(value, dict):
            lines.append(f"{key} = {_toml(value)}")
    for section, entries in values.items():
        if not isinstance(entries, dict):
            continue
        tables = {key: value for key, value in entries.items() if _is_tables(value)}
        lines += ["", f"[{section}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in entries.items() if key not in tables]
        for key, rows in tables.items():
            for row in rows:
                lines += ["", f"[[{section}.{key}]]"]
                lines += [f"{name} = {_toml(value)}" for name, value in row.items()]
    return "\n".join(lines) + "\n"


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(v)}" for key, v in value.items()) + "}"
    return repr(value)


def _name(path: Path, number: int) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem)
    kept = kept.lstrip("._-") or "data"
    return kept if number == 1 else f"{kept}-{number}"
