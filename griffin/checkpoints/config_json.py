"""config.json <-> GriffinConfig: both spellings, old and new names, nothing ignored silently."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from griffin.checkpoints.config_fields import generation_fields, unknown_fields
from griffin.checkpoints.errors import CheckpointError, listed
from griffin.checkpoints.quantization_config import KEY, parse_quantization
from griffin.checkpoints.source import DTYPES
from griffin.foreign import read_object, shown
from griffin.model import GriffinConfig
from griffin.model.config import MOST_LAYERS, check_keys, check_whole

HUGGINGFACE = "recurrent_gemma"
OURS = "griffin"

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
# Fields that decide what the model computes. Where a file leaves one out, transformers' default
# holds.
_MEANT = {
    *_REQUIRED,
    "num_key_value_heads",
    "lru_width",
    "head_dim",
    "attention_window_size",
    "sliding_window",
    "conv1d_width",
    "logits_soft_cap",
    "embeddings_scale_by_sqrt_dim",
    "rms_norm_eps",
    "rope_theta",
    "partial_rotary_factor",
    "rope_parameters",
    "rope_scaling",
    "block_types",
    "_block_types",
    "layer_types",
    "hidden_activation",
    "hidden_act",
    "attention_bias",
    "tie_word_embeddings",
    "model_type",
}


def read_config(path: Path) -> tuple[GriffinConfig, bool]:
    """Read a config.json, Hugging Face's or ours.

    Returns the config, and whether the file itself says that head and embedding are tied or
    separate (many released files do not; then the tensors decide). Raises CheckpointError that
    names file and field.
    """
    return parse_config(read_object(path, refuse=CheckpointError), str(path))


def parse_config(fields: Mapping[str, Any], where: str) -> tuple[GriffinConfig, bool]:
    """Do as `read_config` for fields already read; `where` opens every message."""
    parse_quantization(fields, where)
    try:
        own = {name: value for name, value in fields.items() if name in _meant(fields)}
        unknown_fields(fields, _meant(fields))
        if fields["model_type"] == HUGGINGFACE:
            return _from_huggingface(own)
        own = {name: value for name, value in own.items() if name not in ("model_type", KEY)}
        return GriffinConfig.from_dict(own), "tie_embeddings" in fields
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None


def config_notes(fields: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return what there is to say of the fields of a config that was parsed: of those that mean
    nothing here, and of those that belong to generation."""
    notes: list[str] = []
    if unknown := unknown_fields(fields, _meant(fields)):
        names = listed(map(shown, unknown), 40)
        notes.append(f"{where} has fields that mean nothing here: {names}")
    if asked := generation_fields(fields):
        notes.append(
            f"{where} asks for {listed(asked, 40)} when text is generated; griffin.load takes that"
            " from generation_config.json, and from here only where there is none"
        )
    return tuple(notes)


def stored_type(fields: Mapping[str, Any], where: str) -> torch.dtype | None:
    """Return the type that a config says the weights have, None where it does not say or is of no
    type that weights have here. Raises CheckpointError where it says two."""
    given = {key: fields[key] for key in ("dtype", "torch_dtype") if fields.get(key) is not None}
    if wrong := [value for value in given.values() if not isinstance(value, str)]:
        raise CheckpointError(f"{where}: dtype must be the name of a type, not {shown(wrong[0])}")
    names = {str(value).removeprefix("torch.") for value in given.values()}
    if len(names) > 1:
        raise CheckpointError(
            f"{where}: contradicts itself: {', '.join(f'{k}={shown(v)}' for k, v in given.items())}"
        )
    types = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}
    return types.get(names.pop()) if names else None


def _meant(fields: Mapping[str, Any]) -> set[str]:
    """Return the names that decide what is computed, in the spelling that model_type tells."""
    kind = fields.get("model_type")
    if kind == HUGGINGFACE:
        return _MEANT | {KEY}
    if kind == OURS:
        return {field.name for field in dataclasses.fields(GriffinConfig)} | {"model_type", KEY}
    raise ValueError(f"model_type is {shown(kind)}; expected {HUGGINGFACE!r} or {OURS!r}")


def _from_huggingface(fields: Mapping[str, Any]) -> tuple[GriffinConfig, bool]:
    """Return what the fields that decide what is computed say; ValueError for any that does not."""
    if missing := [key for key in _REQUIRED if fields.get(key) is None]:
        raise ValueError(f"lacks {', '.join(missing)}")

    def value(*keys: str, default: Any) -> Any:
        """Return the one value that any of several spellings gives; a null counts as left out."""
        given = {key: fields[key] for key in keys if fields.get(key) is not None}
        values = list(given.values())
        if any(other != values[0] for other in values[1:]):
            raise ValueError(
                f"contradicts itself: {', '.join(f'{k}={shown(v)}' for k, v in given.items())}"
            )
        return values[0] if values else default

    activation = value("hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        raise ValueError(
            f"hidden_activation is {shown(activation)}; this model computes 'gelu_pytorch_tanh'"
        )
    heads, width, doubled = (
        fields[key] for key in ("num_attention_heads", "hidden_size", "intermediate_size")
    )
    if not isinstance(doubled, int) or doubled % 2:
        raise ValueError(
            f"intermediate_size={shown(doubled)} must be even: it is twice the MLP's inner width"
        )
    check_whole("num_heads", heads)
    check_whole("width", width)
    head_dim = fields.get("head_dim")
    if head_dim is not None and (not isinstance(head_dim, int) or head_dim * heads != width):
        raise ValueError(
            f"head_dim={shown(head_dim)} times num_attention_heads={heads} is not"
            f" hidden_size={width}"
        )
    theta, fraction = _rope(fields)
    config = GriffinConfig(
        vocab_size=fields["vocab_size"],
        width=width,
        mlp_width=doubled // 2,
        lru_width=value("lru_width", default=width),
        num_heads=heads,
        num_gate_blocks=heads,
        block_types=_block_types(fields, value),
        attention_window_size=value("attention_window_size", "sliding_window", default=2048),
        num_kv_heads=value("num_key_value_heads", default=heads),
        conv_width=value("conv1d_width", default=4),
        logits_soft_cap=value("logits_soft_cap", default=30.0),
        scale_embeddings=value("embeddings_scale_by_sqrt_dim", default=True),
        rms_norm_eps=value("rms_norm_eps", default=1e-6),
        rope_theta=theta,
        rope_fraction=fraction,
        attention_bias=value("attention_bias", default=False),
        tie_embeddings=value("tie_word_embeddings", default=True),
    )
    return config, fields.get("tie_word_embeddings") is not None


def _block_types(fields: Mapping[str, Any], value: Any) -> tuple[Any, ...]:
    pattern = value("block_types", "_block_types", default=["recurrent", "recurrent", "attention"])
    layers = fields["num_hidden_layers"]
    if not isinstance(layers, int) or isinstance(layers, bool) or not 1 <= layers <= MOST_LAYERS:
        raise ValueError(
            f"num_hidden_layers must be a whole number of at least 1 and at most {MOST_LAYERS}, not"
            f" {shown(layers)}"
        )
    kinds = {"linear_attention": "recurrent", "sliding_attention": "attention"}
    if not _names(pattern, kinds.values()):
        raise ValueError(
            f"block_types must be a list of 'recurrent' and 'attention', not {shown(pattern)}"
        )
    blocks = [pattern[number % len(pattern)] for number in range(layers)]
    named = fields.get("layer_types")
    if named is not None and not (
        _names(named, kinds) and [kinds[kind] for kind in named] == blocks
    ):
        raise ValueError(
            f"contradicts itself: layer_types={shown(named)} and block_types={shown(pattern)} of"
            f" {layers} layers"
        )
    return tuple(blocks)


def _names(value: Any, allowed: Iterable[str]) -> bool:
    """Return whether a value is a list of names, at least one, all of them allowed."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(kind, str) and kind in set(allowed) for kind in value)
    )


def _rope(fields: Mapping[str, Any]) -> tuple[float, float]:
    rope = fields.get("rope_parameters")
    rope = {} if rope is None else rope
    if not isinstance(rope, dict):
        raise ValueError(f"rope_parameters must be an object, not {shown(rope)}")
    check_keys(rope, {"rope_theta", "partial_rotary_factor", "rope_type"}, "rope_parameters")
    if (kind := rope.get("rope_type")) not in (None, "default"):
        raise ValueError(
            f"rope_parameters asks for rope_type {shown(kind)}; only 'default' exists here"
        )
    if fields.get("rope_scaling") is not None:
        raise ValueError("rope_scaling is set; this model's positions are not scaled")
    found: list[float] = []
    for key, default in (("rope_theta", 10_000.0), ("partial_rotary_factor", 0.5)):
        old, new = fields.get(key), rope.get(key)
        if old is not None and new is not None and old != new:
            raise ValueError(
                f"contradicts itself: {key}={shown(old)} and rope_parameters.{key}={shown(new)}"
            )
        found.append(next((v for v in (new, old) if v is not None), default))
    return found[0], found[1]


def fits_huggingface(config: GriffinConfig) -> list[str]:
    """Return what transformers' RecurrentGemma cannot express about a config; empty if nothing."""
    reasons: list[str] = []
    if config.num_gate_blocks != config.num_heads:
        reasons.append(
            f"num_gate_blocks={config.num_gate_blocks} differs from num_heads={config.num_heads}"
        )
    if not config.scale_embeddings:
        reasons.append("scale_embeddings is off")
    if config.logits_soft_cap == 0:
        reasons.append("logits_soft_cap is 0 (transformers divides by it)")
    if config.rope_fraction == 0:
        reasons.append("rope_fraction is 0")
    return reasons


def to_config_json(config: GriffinConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Return the fields of the config.json to write: transformers' where it can express the model,
    else ours.

    `dtype` is the type of the weights. Both generations of names are written where they differ only
    by name.
    """
    name = str(dtype).removeprefix("torch.")
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    if fits_huggingface(config):
        return {"model_type": OURS, "dtype": name, **ids, **config.to_dict()}
    return {
        "architectures": ["RecurrentGemmaForCausalLM"],
        "model_type": HUGGINGFACE,
        **ids,
        "dtype": name,
        "torch_dtype": name,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": 2 * config.mlp_width,
        "lru_width": config.lru_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "block_types": list(config.block_types),
        "attention_window_size": config.attention_window_size,
        "conv1d_width": config.conv_width,
        "logits_soft_cap": config.logits_soft_cap,
        "embeddings_scale_by_sqrt_dim": True,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "partial_rotary_factor": config.rope_fraction,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "partial_rotary_factor": config.rope_fraction,
        },
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        # What transformers draws new weights with; loading does not use them.
        "w_init_variance_scale": 0.01,
        "final_w_init_variance_scale": 2.0 / config.num_layers,
    }
