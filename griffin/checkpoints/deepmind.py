"""What DeepMind's archives leave unsaid: the config, told from shapes where shapes can tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin.checkpoints.config_json import read_config
from griffin.checkpoints.errors import CheckpointError, listed
from griffin.model import PRESETS, GriffinConfig
from griffin.model.config import BlockType, check_keys

Shapes = Mapping[str, tuple[int, ...]]

RELEASED = ("recurrentgemma-2b", "recurrentgemma-9b", "griffin-7b", "hawk-7b")
# No shape depends on these.
UNTOLD = ("attention_window_size", "logits_soft_cap", "scale_embeddings")


def config_for(
    shapes: Shapes, given: GriffinConfig | Mapping[str, Any] | None, where: Path, folder: Path
) -> GriffinConfig:
    """Return the config of an archive whose tensors have these shapes, by their torch names.

    given:  a whole config, or the fields that shapes cannot tell. Omitted, a config.json in
            `folder` (our conversions leave one) counts, then the released shapes.
    Raises CheckpointError that names the fields that are missing or contradict the shapes.
    """
    told = told_by_shapes(shapes, where)
    source = "config"
    if given is None and (folder / "config.json").is_file():
        given, source = read_config(folder / "config.json")[0], str(folder / "config.json")
    if given is None:
        given, source = _released(told) or {}, "the preset"
    if isinstance(given, GriffinConfig):
        fields = given.to_dict()
    else:
        check_keys(given, set(GriffinConfig.__dataclass_fields__), "config")
        base = _released(told)
        fields = {**(base.to_dict() if base else {}), **given}
    if "attention" not in told["block_types"]:
        # A Hawk computes nothing with these: it has no attention, and the files tell only of gates.
        told["num_heads"] = fields.get("num_heads", told["num_heads"])
        fields.setdefault("attention_window_size", 1024)
    if "recurrent" not in told["block_types"]:
        fields.setdefault("lru_width", told["width"])
        fields.setdefault("num_gate_blocks", told["num_heads"])
    if missing := [name for name in UNTOLD if name not in fields]:
        raise CheckpointError(
            f"{where} has no released shape, and shapes cannot tell {', '.join(missing)}; pass "
            f"config={{{', '.join(f'{name!r}: ...' for name in missing)}}}"
        )
    _compare(told, fields, where, source)
    return GriffinConfig.from_dict({**told, **fields})


def _released(told: Mapping[str, Any]) -> GriffinConfig | None:
    for name in RELEASED:
        preset = PRESETS[name]
        agrees = all(
            getattr(preset, key) == value for key, value in told.items() if key != "vocab_size"
        )
        if agrees and told["vocab_size"] >= preset.vocab_size:
            return preset
    return None


def _compare(told: Mapping[str, Any], fields: Mapping[str, Any], where: Path, source: str) -> None:
    wrong = [
        f"{name}={fields[name]} (the tensors say {value})"
        for name, value in told.items()
        if name in fields
        and (tuple(fields[name]) if name == "block_types" else fields[name]) != value
        # More rows than words: the rows beyond are padding and are left out.
        and not (name == "vocab_size" and fields[name] < value)
    ]
    if wrong:
        raise CheckpointError(f"{where} contradicts {source}: {', '.join(wrong)}")


def told_by_shapes(shapes: Shapes, where: Path) -> dict[str, Any]:
    """Return the config fields that the shapes of a DeepMind archive determine."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        found = shapes.get(name)
        if found is None:
            raise CheckpointError(
                f"{where} is no DeepMind archive: it lacks {name}; found {listed(shapes)}"
            )
        if len(found) != dimensions:
            raise CheckpointError(
                f"{where}: {name} has shape {list(found)}, expected {dimensions} dimensions"
            )
        return found

    vocab_size, width = shape("embedder.input_embedding", 2)
    layers = {int(m[1]) for name in shapes if (m := re.match(r"blocks\.(\d+)\.", name))}
    if not layers or layers != set(range(len(layers))):
        raise CheckpointError(
            f"{where} holds layers {sorted(layers)}; expected them numbered from 0 without gaps"
        )
    blocks: list[BlockType] = []
    for number in range(len(layers)):
        recurrent = any(name.startswith(f"blocks.{number}.recurrent_block.") for name in shapes)
        attention = any(name.startswith(f"blocks.{number}.attention_block.") for name in shapes)
        if recurrent == attention:
            kinds = "both" if recurrent else "neither"
            raise CheckpointError(
                f"{where}: blocks.{number} holds {kinds} of recurrent_block and attention_block"
            )
        blocks.append("recurrent" if recurrent else "attention")
    told: dict[str, Any] = {
        "vocab_size": vocab_size,
        "width": width,
        "mlp_width": shape("blocks.0.mlp_block.ffw_up.w", 3)[-1],
        "block_types": tuple(blocks),
        "num_kv_heads": 1,
        "attention_bias": False,
        "tie_embeddings": True,
    }
    if "recurrent" in blocks:
        prefix = f"blocks.{blocks.index('recurrent')}.recurrent_block."
        gates, block, _ = shape(prefix + "rg_lru.a_gate.w", 3)
        told |= {
            "lru_width": gates * block,
            "num_gate_blocks": gates,
            "num_heads": gates,
            "conv_width": shape(prefix + "conv_1d.w", 2)[0],
        }
    if "attention" in blocks:
        key = f"blocks.{blocks.index('attention')}.attention_block.proj_k.weight"
        head_dim = shape(key, 2)[0]
        if head_dim == 0 or width % head_dim:
            raise CheckpointError(
                f"{where}: {key} has {head_dim} rows, expected a divisor of the width {width}"
            )
        told["num_heads"] = width // head_dim
    return told
