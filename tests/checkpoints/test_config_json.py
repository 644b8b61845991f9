"""config.json in both spellings and both generations, and what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from griffin.checkpoints import CheckpointError
from griffin.checkpoints.config_json import fits_huggingface, parse_config, to_config_json
from griffin.model import PRESETS, GriffinConfig
from tests.support.toy_checkpoints import HUGGINGFACE
from tests.support.toy_models import GRIFFIN

# The released files, key by key.
RELEASED_2B = json.loads("""
{"_block_types":["recurrent","recurrent","attention"],"architectures":["RecurrentGemmaForCausalLM"],
 "attention_bias":false,"attention_dropout":0.0,"attention_window_size":2048,"bos_token_id":2,
 "conv1d_width":4,
 "embeddings_scale_by_sqrt_dim":true,"eos_token_id":1,
 "final_w_init_variance_scale":0.07692307692307693,
 "head_dim":256,"hidden_activation":"gelu_pytorch_tanh","hidden_size":2560,
 "intermediate_size":15360,
 "logits_soft_cap":30.0,"lru_width":2560,"model_type":"recurrent_gemma","num_attention_heads":10,
 "num_hidden_layers":26,"num_key_value_heads":1,"pad_token_id":0,"partial_rotary_factor":0.5,
 "rms_norm_eps":1e-06,"rope_theta":10000.0,"torch_dtype":"bfloat16",
 "transformers_version":"4.40.0.dev0",
 "use_cache":true,"vocab_size":256000,"w_init_variance_scale":0.01}
""")
RELEASED_9B = {
    **{k: v for k, v in RELEASED_2B.items()
       if k not in ("_block_types", "embeddings_scale_by_sqrt_dim")},
    "block_types": ["recurrent", "recurrent", "attention"],
    "hidden_size": 4096, "intermediate_size": 24576, "lru_width": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 38, "transformers_version": "4.42.0.dev0",
    "final_w_init_variance_scale": 0.05263157894736842,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "preset"), [(RELEASED_2B, "recurrentgemma-2b"), (RELEASED_9B, "recurrentgemma-9b")]
)
def test_released(fields: dict[str, Any], preset: str) -> None:
    config, says_tied = parse_config(fields, "x")
    assert config == PRESETS[preset] and not says_tied


def test_new_names() -> None:
    fields = {
        k: v
        for k, v in RELEASED_2B.items()
        if k not in ("rope_theta", "partial_rotary_factor", "torch_dtype")
    }
    rope = {"rope_theta": 123.0, "partial_rotary_factor": 0.25, "rope_type": "default"}
    config, _ = parse_config({**fields, "dtype": "bfloat16", "rope_parameters": rope}, "x")
    assert (config.rope_theta, config.rope_fraction) == (123.0, 0.25)


@pytest.mark.parametrize("config", [HUGGINGFACE, GRIFFIN, *PRESETS.values()])
def test_round_trip(config: GriffinConfig) -> None:
    fields = json.loads(json.dumps(to_config_json(config, torch.bfloat16)))
    assert parse_config(fields, "x")[0] == config
    assert fields["model_type"] == ("griffin" if fits_huggingface(config) else "recurrent_gemma")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_gate_blocks": 3}, "num_gate_blocks=3 differs"),
        ({"scale_embeddings": False}, "scale_embeddings"),
        ({"logits_soft_cap": 0.0}, "logits_soft_cap is 0"),
        ({"rope_fraction": 0.0}, "rope_fraction"),
    ],
)
def test_inexpressible(change: dict[str, Any], message: str) -> None:
    (reason,) = fits_huggingface(HUGGINGFACE.replace(**change))
    assert message in reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atention_bias": True}, "'atention_bias' (did you mean 'attention_bias'?)"),
        ({"quantization_config": {}}, "quantization_config has quant_method None"),
        ({"block_types": ["attention"]}, "contradicts itself: block_types"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "contradicts itself: rope_theta=10000.0"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling"),
        ({"hidden_activation": "relu"}, "'gelu_pytorch_tanh'"),
        ({"intermediate_size": 15361}, "intermediate_size=15361 must be even"),
        ({"head_dim": 128}, "head_dim=128"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"_block_types": "recurrent"}, "block_types must be a list"),
        ({"_block_types": ["recurent"]}, "'recurent'"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
    ],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_config({**RELEASED_2B, **change}, "folder/config.json")
    assert str(caught.value).startswith("folder/config.json: ") and message in str(caught.value)
