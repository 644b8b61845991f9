"""A recipe: everything that decides what a training run does, read from one TOML file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from griffin.model.config import GriffinConfig, check_keys

_Section = TypeVar("_Section")


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Say which documents are read.

    source              "stdlib": the standard library of the running Python; "files": text files in
                        `root`.
    root                where `include` starts ("files" only); relative to the recipe's own folder.
    include, exclude    glob patterns over paths relative to the root; `*` stops at a /, `**` does
                        not.
    held_out            the share of documents kept for validation, chosen by a hash of the relative
                        path.
    max_document_bytes  longer files are cut into several documents, at ends of lines.
    """

    source: Literal["stdlib", "files"] = "stdlib"
    root: str = "."
    include: tuple[str, ...] = ("**/*.py",)
    exclude: tuple[str, ...] = ()
    held_out: float = 0.05
    max_document_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        _check_types(self, "data")
        if not self.include:
            raise ValueError('data.include is empty; name at least one pattern, such as "**/*.txt"')
        if not 0 < self.held_out < 1:
            raise ValueError(
                f"data.held_out must lie between 0 and 1 (exclusive), not {self.held_out}"
            )
        if self.max_document_bytes < 1:
            raise ValueError(
                f"data.max_document_bytes must be positive, not {self.max_document_bytes}"
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """Say where the vocabulary comes from.

    path           an existing `tokenizer.json`, relative to the recipe's own folder; empty: train
                   one on the training documents with as many pieces as the model's `vocab_size`.
    min_frequency  a learned piece occurs at least this often.
    """

    path: str = ""
    min_frequency: int = 2

    def __post_init__(self) -> None:
        _check_types(self, "tokenizer")
        if self.min_frequency < 1:
            raise ValueError(
                f"tokenizer.min_frequency must be at least 1, not {self.min_frequency}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Say how the weights are found. A step reads rows x accumulation x length tokens.

    tokens or steps      the budget: exactly one of them is given, the other is 0.
    rows, length         shape of one micro-batch; accumulation: micro-batches a step.
    learning_rate        the peak, reached in a line over `warmup_steps`.
    schedule             what follows: "cosine" or "linear" down to `final_ratio` of the peak at the
                         last step; "constant"; "wsd" (warm-up, stable, decay): constant, then a
                         line down over the last `decay_steps`.
    weight_decay         on matrices only; never on RG-LRU parameters, norms, biases and embeddings.
    clip                 the largest norm of the gradient; 0 leaves it alone.
    dtype                "float32", or "bfloat16": bfloat16 matrix products over float32 weights.
    eval_every           steps between validations on the first `eval_tokens` held-out tokens.
    checkpoint_minutes   minutes between checkpoints; the newest `keep` of them stay.
    """

    tokens: int = 0
    steps: int = 0
    rows: int = 16
    length: int = 512
    accumulation: int = 1
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    warmup_steps: int = 100
    decay_steps: int = 0
    final_ratio: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip: float = 1.0
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    log_every: int = 10
    eval_every: int = 250
    eval_tokens: int = 100_000
    checkpoint_minutes: float = 10.0
    keep: int = 2

    def __post_init__(self) -> None:
        _check_types(self, "train")
        if (self.tokens > 0) == (self.steps > 0):
            raise ValueError(
                f"train needs exactly one budget, tokens or steps, "
                f"not tokens={self.tokens} and steps={self.steps}"
            )
        for name in (
            "rows",
            "length",
            "accumulation",
            "log_every",
            "eval_every",
            "eval_tokens",
            "keep",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, not {getattr(self, name)}")
        for name in (
            *("tokens", "steps", "warmup_steps", "decay_steps"),
            *("weight_decay", "clip", "seed"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, not {getattr(self, name)}")
        for name in ("learning_rate", "epsilon", "checkpoint_minutes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"train.{name} must be positive, not {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"train.{name} must be at least 0 and less than 1, not {getattr(self, name)}"
                )
        if not 0 <= self.final_ratio <= 1:
            raise ValueError(f"train.final_ratio must lie between 0 and 1, not {self.final_ratio}")
        if (self.schedule == "wsd") != (self.decay_steps > 0):
            raise ValueError(
                "train.decay_steps belongs to train.schedule = 'wsd', which needs it; here it is"
                f" {self.decay_steps}, with {self.schedule!r}"
            )

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.length * self.accumulation

    @property
    def total_steps(self) -> int:
        """The number of optimiser steps the budget pays for, at least one."""
        return self.steps or max(1, self.tokens // self.tokens_per_step)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Describe one training run. Build it with `load_recipe` or `Recipe.from_dict`.

    folder is where relative paths start; it is not part of the recipe's digest.
    """

    model: GriffinConfig
    data: DataRecipe = field(default_factory=DataRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    train: TrainRecipe
    folder: Path = Path()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], folder: Path = Path()) -> Recipe:
        """Build a recipe from plain values; anything unknown or impossible is a ValueError that
        names it."""
        check_keys(values, {"model", "data", "tokenizer", "train"}, "recipe")
        for section in ("model", "train"):
            if section not in values:
                raise ValueError(f"recipe lacks the section [{section}]")
        for section, entries in values.items():
            if not isinstance(entries, Mapping):
                raise ValueError(
                    f"recipe: {section} must be a section, [{section}], not {entries!r}"
                )
        return cls(
            model=_model(values["model"]),
            data=_section(DataRecipe, values.get("data", {}), "data"),
            tokenizer=_section(TokenizerRecipe, values.get("tokenizer", {}), "tokenizer"),
            train=_section(TrainRecipe, values["train"], "train"),
            folder=folder,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the inverse of `from_dict`; the model field by field."""
        sections = {
            name: dataclasses.asdict(getattr(self, name)) for name in ("data", "tokenizer", "train")
        }
        return json.loads(json.dumps({"model": self.model.to_dict()} | sections))

    def digest(self) -> str:
        """Return a hash of all that decides the weights: a resumed run is the same run."""
        values = self.to_dict()
        for name in ("log_every", "eval_every", "eval_tokens", "checkpoint_minutes", "keep"):
            del values["train"][name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_recipe(path: Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe from a TOML file, then apply changes of the form "section.key=value".

    The value of a change is read as TOML, and as a plain string where it is none. A file that is
    missing or is no TOML, an unknown key or an impossible value raises ValueError.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no recipe at {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not a readable TOML file: {error}") from error
    for change in changes:
        _apply(values, change)
    try:
        return Recipe.from_dict(values, folder=path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _apply(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ValueError(f"--set takes section.key=value, such as train.steps=100, not {change!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    entries = values.setdefault(section, {})
    if not isinstance(entries, dict):
        raise ValueError(f"--set {change!r}: {section} is no section of the recipe")
    if section == "train" and key in ("tokens", "steps"):
        entries.pop("steps" if key == "tokens" else "tokens", None)  # one budget replaces the other
    entries[key] = value


def _model(values: Mapping[str, Any]) -> GriffinConfig:
    known = {f.name for f in dataclasses.fields(GriffinConfig)} | {"preset"}
    check_keys(values, known, "model")
    fields = {key: value for key, value in values.items() if key != "preset"}
    if "preset" in values:
        if not isinstance(values["preset"], str):
            raise ValueError(f"model.preset must be a name, not {values['preset']!r}")
        return GriffinConfig.preset(values["preset"]).replace(**fields)
    return GriffinConfig.from_dict(fields)


def _section(kind: type[_Section], values: Mapping[str, Any], name: str) -> _Section:
    known = {f.name for f in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in known and _MEANT.get(key) in known:
            raise ValueError(f"{name} has no {key!r}; here it is {name}.{_MEANT[key]}")
    check_keys(values, known, name)
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def _check_types(section: Any, name: str) -> None:
    """Refuse values of the wrong type, and make whole numbers floats where a float is meant."""
    hints = typing.get_type_hints(type(section))
    for key, hint in hints.items():
        value = getattr(section, key)
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(section, key, float(value))
        elif typing.get_origin(hint) is Literal:
            if value not in typing.get_args(hint):
                allowed = ", ".join(repr(choice) for choice in typing.get_args(hint))
                raise ValueError(f"{name}.{key} must be one of {allowed}, not {value!r}")
        elif hint == tuple[str, ...]:
            if not isinstance(value, tuple) or not all(isinstance(entry, str) for entry in value):
                raise ValueError(f"{name}.{key} must be a list of strings, not {value!r}")
        elif not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise ValueError(f"{name}.{key} must be {_KINDS[hint]}, not {value!r}")
        elif hint is float and not math.isfinite(value):
            raise ValueError(f"{name}.{key} must be a finite number, not {value}")


# What other trainers call a field of ours.
_MEANT = {
    **dict.fromkeys(("lr", "max_lr", "peak_lr"), "learning_rate"),
    **dict.fromkeys(("batch_size", "micro_batch_size", "per_device_train_batch_size"), "rows"),
    **dict.fromkeys(("seq_len", "block_size", "context_length", "max_seq_length"), "length"),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accum"), "accumulation"),
    **dict.fromkeys(("max_steps", "num_steps", "iters"), "steps"),
    **dict.fromkeys(("max_tokens", "num_tokens"), "tokens"),
    **dict.fromkeys(("warmup", "warmup_iters"), "warmup_steps"),
    **dict.fromkeys(("lr_scheduler_type", "lr_schedule", "scheduler"), "schedule"),
    **dict.fromkeys(("grad_clip", "max_grad_norm", "clip_grad"), "clip"),
    **dict.fromkeys(("wd", "adam_weight_decay"), "weight_decay"),
    **dict.fromkeys(("eps", "adam_epsilon"), "epsilon"),
    **dict.fromkeys(("precision", "torch_dtype"), "dtype"),
    **dict.fromkeys(("eval_interval", "eval_steps"), "eval_every"),
    **dict.fromkeys(("log_interval", "logging_steps"), "log_every"),
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "min_lr_ratio": "final_ratio",
    "save_total_limit": "keep",
}

_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
}
