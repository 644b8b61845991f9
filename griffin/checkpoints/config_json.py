"""config.json <-> GriffinConfig: both spellings, old and new names, nothing ignored silently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from griffin.checkpoints.errors import CheckpointError
from griffin.checkpoints.quantization_config import KEY, parse_quantization
from griffin.model import GriffinConfig
from griffin.model.config import check_keys

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
# Fields every Hugging Face config may carry and no forward pass of ours depends on.
_HARMLESS = {
    "_attn_implementation",
    "_commit_hash",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "final_w_init_variance_scale",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "max_position_embeddings",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "w_init_variance_scale",
}


def read_config(path: Path) -> tuple[GriffinConfig, bool]:
    """Read a config.json, Hugging Face's or ours.

    Returns the config, and whether the file itself says that head and embedding are tied or
    separate (many released files do not; then the tensors decide). Raises CheckpointError that
    names file and field.
    """
    try:
        fields = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(fields).__name__}")
    return parse_config(fields, str(path))


def parse_config(fields: Mapping[str, Any], where: str) -> tuple[GriffinConfig, bool]:
    """Do as `read_config` for fields already read; `where` opens every message."""
    kind = fields.get("model_type")
    parse_quantization(fields, where)
    try:
        if kind == HUGGINGFACE:
            return _from_huggingface(fields)
        if kind == OURS:
            own = {
                key: value
                for key, value in fields.items()
                if key not in _HARMLESS | {"model_type", KEY}
            }
            return GriffinConfig.from_dict(own), "tie_embeddings" in fields
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None
    raise CheckpointError(f"{where}: model_type is {kind!r}; expected {HUGGINGFACE!r} or {OURS!r}")


def _from_huggingface(fields: Mapping[str, Any]) -> tuple[GriffinConfig, bool]:
    check_keys(fields, _MEANT | _HARMLESS | {KEY}, "a recurrent_gemma config")
    if missing := [key for key in _REQUIRED if fields.get(key) is None]:
        raise ValueError(f"lacks {', '.join(missing)}")

    def value(*keys: str, default: Any) -> Any:
        """Return the one value that any of several spellings gives; a null counts as left out."""
        given = {key: fields[key] for key in keys if fields.get(key) is not None}
        values = list(given.values())
        if any(other != values[0] for other in values[1:]):
            raise ValueError(
                f"contradicts itself: {', '.join(f'{k}={v!r}' for k, v in given.items())}"
            )
        return values[0] if values else default

    activation = value("hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        raise ValueError(
            f"hidden_activation is {activation!r}; this model computes 'gelu_pytorch_tanh'"
        )
    heads, width, doubled = (
        fields[key] for key in ("num_attention_heads", "hidden_size", "intermediate_size")
    )
    if not isinstance(doubled, int) or doubled % 2:
        raise ValueError(
            f"intermediate_size={doubled!r} must be even: it is twice the MLP's inner width"
        )
    if (head_dim := fields.get("head_dim")) is not None and head_dim * heads != width:
        raise ValueError(
            f"head_dim={head_dim} times num_attention_heads={heads} is not hidden_size={width}"
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
    if not isinstance(layers, int) or layers < 1:
        raise ValueError(f"num_hidden_layers must be a whole number of at least 1, not {layers!r}")
    if not isinstance(pattern, list) or not pattern:
        raise ValueError(
            f"block_types must be a list of 'recurrent' and 'attention', not {pattern!r}"
        )
    blocks = tuple((pattern * layers)[:layers])
    kinds = {"linear_attention": "recurrent", "sliding_attention": "attention"}
    if (named := fields.get("layer_types")) is not None and [kinds.get(k) for k in named] != list(
        blocks
    ):
        raise ValueError(f"contradicts itself: layer_types={named} and block_types={pattern}")
    return blocks


def _rope(fields: Mapping[str, Any]) -> tuple[float, float]:
    rope = fields.get("rope_parameters") or {}
    check_keys(rope, {"rope_theta", "partial_rotary_factor", "rope_type"}, "rope_parameters")
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"rope_parameters asks for rope_type {rope['rope_type']!r}; only 'default' exists here"
        )
    if fields.get("rope_scaling") is not None:
        raise ValueError("rope_scaling is set; this model's positions are not scaled")
    found: list[float] = []
    for key, default in (("rope_theta", 10_000.0), ("partial_rotary_factor", 0.5)):
        old, new = fields.get(key), rope.get(key)
        if old is not None and new is not None and old != new:
            raise ValueError(f"contradicts itself: {key}={old} and rope_parameters.{key}={new}")
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
