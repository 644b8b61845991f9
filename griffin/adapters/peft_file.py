"""LoRA adapters in the files of PEFT: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from griffin.adapters.adapter import A, Adapter, B
from griffin.adapters.base_mark import BaseMark
from griffin.adapters.config import TARGETS, LoraConfig
from griffin.adapters.metadata import read_metadata
from griffin.checkpoints.errors import disk_errors
from griffin.checkpoints.safetensors_files import SafetensorsSource, read_header
from griffin.checkpoints.staging import staged_folder
from griffin.foreign import parse_json, read_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# In the metadata of the tensors' file, which PEFT does not look at; older versions of it refuse a
# config with a key that they do not know.
_MARK = "griffin_base"
# What PEFT puts before the name of a module in a causal language model.
_PREFIX = "base_model.model."
# Fields that say nothing about what the adapter computes.
_INERT = {
    *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "peft_version", "megatron_core", "qalora_group_size", "runtime_config"),
    "init_lora_weights",
}
_READ = {
    *("r", "lora_alpha", "use_rslora", "lora_dropout", "target_modules", "modules_to_save"),
}
# Ways to begin that change the base's own weights, which are then not those of the base.
_CHANGES_BASE = ("pissa", "olora", "corda", "eva", "loftq", "orthogonal")


def open_adapter(folder: str | Path, name: str | None = None) -> Adapter:
    """Read an adapter from a folder; `name` is what it is called, the folder's own if omitted.

    The tensors are copies in the type they are stored in. Raises ValueError, naming file and field,
    for what is no LoRA, for options that are not implemented here, and for a file of tensors that
    is torn or holds another kind of key. Whether it fits a model is `Adapter.check`'s to say, and
    `check_base`'s.
    """
    place = Path(folder).expanduser()
    if not (place / CONFIG).is_file():
        raise ValueError(f"{place} holds no adapter: there is no {CONFIG} in it")
    fields = read_object(place / CONFIG)
    config = _config(fields, place / CONFIG)
    file = place / WEIGHTS
    if not file.is_file():
        other = " (adapter_model.bin is a pickle, which is not read)"
        is_pickle = (place / "adapter_model.bin").exists()
        raise ValueError(f"{place} has no {WEIGHTS}{other if is_pickle else ''}")
    entries = read_header(file)
    source, tensors = SafetensorsSource((file,), entries), dict[str, Tensor]()
    for key in entries:
        tensors[_ours(key, file)] = source.read(key).clone()
    source.release()
    return Adapter(name or place.resolve().name, config, tensors, _mark(file))


def save_adapter(adapter: Adapter, folder: str | Path, base: str | None = None) -> Path:
    """Write an adapter as PEFT would; it appears whole or not at all. Return the folder.

    base: the name of the model that it is for, as the file says it; that of its mark if omitted.
    """
    target, config = Path(folder).expanduser(), adapter.config
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or (adapter.mark.name if adapter.mark else None),
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "use_rslora": config.rslora,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "modules_to_save": list(config.whole) or None,
        "bias": "none",
        "fan_in_fan_out": False,
    }
    with disk_errors(target), staged_folder(target) as staged:
        tensors = {_theirs(key): t.detach().contiguous() for key, t in adapter.tensors.items()}
        mark = {_MARK: json.dumps(adapter.mark.to_dict())} if adapter.mark else {}
        save_file(tensors, staged / WEIGHTS, {"format": "pt"} | mark)
        text = json.dumps(fields, indent=2) + "\n"
        (staged / CONFIG).write_text(text, encoding="utf-8")
    return target


def _mark(file: Path) -> BaseMark | None:
    if (said := read_metadata(file).get(_MARK)) is None:
        return None
    where = f"{file}: its metadata's {_MARK}"
    return BaseMark.parse(parse_json(said.encode(), where), where)


def _config(fields: dict[str, Any], file: Path) -> LoraConfig:
    if fields.get("peft_type") != "LORA":
        raise ValueError(f"{file}: peft_type is {fields.get('peft_type')!r}; only LORA is read")
    for key, value in fields.items():
        neutral = not value or (key == "bias" and value == "none")
        if key not in _READ | _INERT and not neutral:
            raise ValueError(f"{file}: {key} is {str(value)[:80]!r}, which is not implemented here")
    begun = fields.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE):
        raise ValueError(
            f"{file}: it began with {begun}, which changes the base's weights; convert it to a"
            " plain LoRA with PEFT first"
        )
    targets = _names(fields, "target_modules", file)
    try:
        return LoraConfig(
            rank=_typed(fields, "r", int, 8),
            alpha=float(_typed(fields, "lora_alpha", (int, float), 8)),
            rslora=_typed(fields, "use_rslora", bool, False),
            dropout=float(_typed(fields, "lora_dropout", (int, float), 0.0)),
            targets=tuple(sorted(targets, key=_place)),
            whole=_names(fields, "modules_to_save", file),
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _typed(fields: dict[str, Any], key: str, kind: Any, default: Any) -> Any:
    value = fields.get(key, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{key} is {str(value)[:80]!r}, which is of another type than PEFT writes")
    return value


def _names(fields: dict[str, Any], key: str, file: Path) -> tuple[str, ...]:
    value = fields.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f"{file}: {key} is {str(value)[:80]!r}; expected a list of layers, such as"
            f" {list(TARGETS[:2])}"
        )
    return tuple(value)


def _place(name: str) -> int:
    """The order of TARGETS: PEFT writes them in any order."""
    return TARGETS.index(name) if name in TARGETS else len(TARGETS)


def _ours(key: str, file: Path) -> str:
    if not key.startswith(_PREFIX):
        raise ValueError(f"{file}: {key[:120]!r} is no tensor of an adapter; they begin {_PREFIX}")
    name = key.removeprefix(_PREFIX)
    for part in (A, B):
        if name.endswith(f"{part}.weight"):
            return name.removesuffix(".weight")
    return name


def _theirs(key: str) -> str:
    return f"{_PREFIX}{key}.weight" if key.endswith((A, B)) else _PREFIX + key
