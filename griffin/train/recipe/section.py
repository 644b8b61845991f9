"""What all sections of a recipe share: known keys, types, and hints for names of other
trainers."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from griffin.model.config import check_keys

_Section = TypeVar("_Section")


def read_section(kind: type[_Section], values: Mapping[str, Any], name: str) -> _Section:
    known = {f.name for f in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in known and _MEANT.get(key) in known:
            raise ValueError(f"{name} has no {key!r}; here it is {name}.{_MEANT[key]}")
    check_keys(values, known, name)
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def check_types(section: Any, name: str, but: tuple[str, ...] = ()) -> None:
    """Refuse values of the wrong type, and make whole numbers floats where a float is meant.

    but: fields that the section checks itself.
    """
    hints = typing.get_type_hints(type(section))
    for key, hint in hints.items():
        if key in but:
            continue
        value = getattr(section, key)
        if type(None) in typing.get_args(hint):  # what need not be given
            if value is None:
                continue
            [hint] = (each for each in typing.get_args(hint) if each is not type(None))
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
    **dict.fromkeys(("num_epochs", "num_train_epochs", "max_epochs", "max_repeats"), "epochs"),
    **dict.fromkeys(("stages", "phases"), "stage"),
    **dict.fromkeys(("proportion", "probability", "ratio", "share"), "weight"),
    **dict.fromkeys(("proportions", "probabilities", "mixture"), "weights"),
    **dict.fromkeys(("warmup", "warmup_iters"), "warmup_steps"),
    **dict.fromkeys(("lr_scheduler_type", "lr_schedule", "scheduler"), "schedule"),
    **dict.fromkeys(("grad_clip", "max_grad_norm", "clip_grad"), "clip"),
    **dict.fromkeys(("wd", "adam_weight_decay"), "weight_decay"),
    **dict.fromkeys(("eps", "adam_epsilon"), "epsilon"),
    **dict.fromkeys(("precision", "torch_dtype"), "dtype"),
    **dict.fromkeys(("eval_interval", "eval_steps"), "eval_every"),
    **dict.fromkeys(("log_interval", "logging_steps"), "log_every"),
    **dict.fromkeys(("data_files", "files", "file", "root"), "path"),
    **dict.fromkeys(("dataset", "dataset_name", "repo_id", "repo"), "hub"),
    **dict.fromkeys(("dataset_config", "config", "config_name"), "subset"),
    **dict.fromkeys(("dataset_split",), "split"),
    **dict.fromkeys(
        ("context_parallel_size", "context_parallel_degree", "sequence_parallel_size"),
        "sequence_ranks",
    ),
    **dict.fromkeys(
        ("gradient_checkpointing", "activation_checkpointing", "remat", "recompute"), "checkpoint"
    ),
    **dict.fromkeys(("r", "lora_r", "lora_rank"), "rank"),
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "min_lr_ratio": "final_ratio",
    **dict.fromkeys(("param_dtype", "master_dtype", "weights_dtype"), "weights"),
    "save_total_limit": "keep",
    "load_best_model_at_end": "keep_best",
}

_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    int | str: "a whole number or a string",
}
