"""A recipe: everything that decides what a training run does, read from one TOML file."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from griffin import checkpoints
from griffin.model.config import GriffinConfig, check_keys
from griffin.train.recipe.data import DataRecipe, TokenizerRecipe
from griffin.train.recipe.section import read_section
from griffin.train.recipe.source import ALL_KINDS, FEWER_KINDS
from griffin.train.recipe.train import BUDGETS, TrainRecipe
from griffin.train.recipe.tune import Reads, TuneRecipe


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Describe one training run. Build it with `load_recipe` or `Recipe.from_dict`.

    base is the checkpoint that weights and tokenizer come from, the recipe's `from`; empty where
    a model begins with random weights. tune says how that checkpoint is tuned; None for training
    on all that is read. folder is where relative paths start; it is not part of the recipe's
    digest.
    """

    model: GriffinConfig
    data: DataRecipe = field(default_factory=DataRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    train: TrainRecipe
    tune: TuneRecipe | None = None
    base: str = ""
    folder: Path = Path()

    def __post_init__(self) -> None:
        names = [source.name for source in self.data.sources]
        for stage in self.train.stage:
            check_keys(stage.weights, set(names), f"train.stage {stage.name!r}: weights")
        if not any(source.weight for source in self.data.sources):
            weighed = self.train.stage and all(stage.weights for stage in self.train.stage)
            if not weighed:
                raise ValueError("data.source: the weights are all 0: nothing would be read")
        if self.tune is not None and not self.base:
            raise ValueError("[tune] needs from = ..., the checkpoint that is tuned")
        if self.train.carry and self.data.packing != "cut":
            raise ValueError(
                "train.carry goes on in the next row where a row cuts a document, so it takes"
                f" data.packing = 'cut', not {self.data.packing!r}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], folder: Path = Path()) -> Recipe:
        """Build a recipe from plain values; anything unknown or impossible is a ValueError that
        names it."""
        check_keys(values, {"from", "model", "data", "tokenizer", "train", "tune"}, "recipe")
        values = dict(values)
        base = values.pop("from", "")
        for section, entries in values.items():
            if not isinstance(entries, Mapping):
                raise ValueError(
                    f"recipe: {section} must be a section, [{section}], not {entries!r}"
                )
        _check_base(base, values)
        for section in ("train",) if base else ("model", "train"):
            if section not in values:
                beside = " (or from = ..., a checkpoint)" if section == "model" else ""
                raise ValueError(f"recipe lacks the section [{section}]{beside}")
        return cls(
            model=(
                checkpoints.open(_found(base, folder)).config if base else _model(values["model"])
            ),
            data=read_section(DataRecipe, values.get("data", {}), "data"),
            tokenizer=read_section(TokenizerRecipe, values.get("tokenizer", {}), "tokenizer"),
            train=read_section(TrainRecipe, values["train"], "train"),
            tune=_tune(values["tune"]) if "tune" in values else None,
            base=base,
            folder=folder,
        )

    @property
    def reads(self) -> Reads:
        """What rows of data must say."""
        return self.tune.reads if self.tune is not None else "answers"

    def open_base(self) -> checkpoints.Checkpoint:
        """Open the checkpoint that this recipe starts from; headers alone are read."""
        return checkpoints.open(self.base_place)

    @property
    def base_place(self) -> str | Path:
        """Where that checkpoint is, seen from here: a path, or the name of one."""
        return _found(self.base, self.folder)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the inverse of `from_dict`; a model without base field by field."""
        sections = {
            name: dataclasses.asdict(getattr(self, name)) for name in ("data", "tokenizer", "train")
        }
        first = {"from": self.base} if self.base else {"model": self.model.to_dict()}
        if self.tune is not None:
            sections["tune"] = dataclasses.asdict(self.tune)
        return json.loads(json.dumps(first | sections))

    def deciding(self) -> dict[str, Any]:
        """Return the plain values that decide the weights: a run that is resumed has the same."""
        values = self.to_dict() | {"model": self.model.to_dict()}
        for name in (
            "log_every",
            "eval_every",
            "eval_tokens",
            "checkpoint_minutes",
            "keep",
            "keep_best",
            "prompts",
            "sample_every",
            "sample_tokens",
            "checkpoint",
            "sequence_ranks",  # as the number of ranks: who computes, not what
        ):
            del values["train"][name]
        if isinstance(values["data"]["source"], list):
            for table in values["data"]["source"]:
                if table["include"] == list(FEWER_KINDS):
                    table["include"] = list(ALL_KINDS)
        values.get("tune", {}).pop("reward_failures", None)  # more of them would have stopped it
        return values

    def digest(self) -> str:
        """Return a hash of all that decides the weights."""
        return _hash(self.deciding())

    def data_digest(self) -> str:
        """Return a hash of all that decides what documents become before they are rows.

        Rows are made of them anew each time, so how that is done, and how sources are mixed, has no
        part in it.
        """
        values = {key: value for key, value in self.to_dict().items() if key != "train"}
        del values["data"]["packing"]
        tables = [dataclasses.asdict(source) for source in self.data.sources]
        for table in tables:
            for key in ("weight", "epochs", "seed"):
                del table[key]
        values["data"]["source"] = tables
        if not self.base:
            values["model"] = {"vocab_size": self.model.vocab_size}
        values["tune"] = self.reads
        # Relative paths mean something else in the folder of another recipe.
        return _hash(values | {"folder": str(self.folder.resolve())})


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_recipe(path: Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe from a TOML file, then apply changes of the form "section.key=value" (or
    "from=CHECKPOINT").

    The value of a change is read as TOML, and as a plain string where it is none. A file that is
    missing or is no TOML, an unknown key or an impossible value raises ValueError.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no recipe at {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not a readable TOML file: {error}") from error
    try:
        return recipe_of(values, changes, path.parent)
    except ChangeError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class ChangeError(ValueError):
    """A change of a recipe's value cannot be read."""


def recipe_of(
    values: Mapping[str, Any], changes: Iterable[str] = (), folder: Path = Path()
) -> Recipe:
    """Return the recipe of plain values, with changes as for `load_recipe`; errors as there."""
    changed, changes = copy.deepcopy(dict(values)), list(changes)
    named = dict.fromkeys(change.partition("=")[0].strip() for change in changes)
    budgets = [name for name in named if name in {f"train.{key}" for key in BUDGETS}]
    if len(budgets) > 1:
        raise ChangeError(
            f"--set takes one budget, which replaces the recipe's, not {' and '.join(budgets)}"
        )
    for change in changes:
        _apply(changed, change)
    return Recipe.from_dict(changed, folder=folder)


def _apply(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    section, dot, key = name.strip().partition(".")
    whole = equals and section == "from" and not dot
    if not (whole or (equals and dot and section and key)):
        raise ChangeError(f"--set takes section.key=value, such as train.steps=100, not {change!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if whole:
        values["from"] = value
        return
    entries = values.setdefault(section, {})
    if not isinstance(entries, dict):
        raise ChangeError(f"--set {change!r}: {section} is no section of the recipe")
    if section == "train" and key in BUDGETS:  # one budget replaces another
        for other in BUDGETS:
            entries.pop(other, None)
    entries[key] = value


def _check_base(base: Any, values: Mapping[str, Any]) -> None:
    """Raise ValueError for a `from` that is no name, and for what cannot stand beside one."""
    if not isinstance(base, str):
        raise ValueError(f"from must name a checkpoint, a folder or a repository, not {base!r}")
    if not base:
        return
    if "model" in values:
        raise ValueError(
            f"from = {base!r} brings the model's shape, so [model] cannot stand beside it; take one"
            " of the two out"
        )
    if values.get("tokenizer", {}).get("path"):
        raise ValueError(
            f"from = {base!r} brings its own tokenizer, so tokenizer.path cannot stand beside it;"
            " take it out"
        )


def _found(base: str, folder: Path) -> str | Path:
    """Return a path in the recipe's folder where there is one, else the name as it is."""
    beside = folder / Path(base).expanduser()
    return beside if beside.exists() else base


def _tune(values: Mapping[str, Any]) -> TuneRecipe:
    if "method" not in values:
        raise ValueError("the section [tune] lacks its method, such as method = 'lora'")
    return read_section(TuneRecipe, values, "tune")


def _model(values: Mapping[str, Any]) -> GriffinConfig:
    known = {f.name for f in dataclasses.fields(GriffinConfig)} | {"preset"}
    check_keys(values, known, "model")
    fields = {key: value for key, value in values.items() if key != "preset"}
    if "preset" in values:
        if not isinstance(values["preset"], str):
            raise ValueError(f"model.preset must be a name, not {values['preset']!r}")
        return GriffinConfig.preset(values["preset"]).replace(**fields)
    return GriffinConfig.from_dict(fields)
