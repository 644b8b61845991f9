"""Fields that config.json need not have: said, refused or bookkeeping, whoever wrote them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import griffin
import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError, CheckpointWarning, config_json
from griffin.checkpoints.config_fields import (
    BOOKKEEPING,
    GENERATION,
    computes,
    generation_fields,
)
from griffin.checkpoints.config_json import config_notes, parse_config
from griffin.cli import main
from griffin.foreign import shown
from tests.checkpoints.test_config_json import RELEASED_2B
from tests.support.toy_checkpoints import HUGGINGFACE, edit_config
from tests.support.toy_folder import write_toy
from tests.support.toy_models import make_model

# What public tools write into the configs of models that they do not change.
TOOLS = {
    "_attn_implementation_autoset": True,
    "_attn_implementation_internal": "sdpa",
    "_experts_implementation": "eager",
    "_flash_attn_2_enabled": True,
    "_unsloth_": 1,
    "unsloth_version": "2025.3.9",
    "unsloth_fixed": True,
    "unsloth_tiled_mlp": True,
    "transformers.js_config": {"dtype": "q4", "kv_cache_dtype": {"q4f16": "float16"}},
    "cache_implementation": "hybrid",
    "pretraining_tp": 1,
    "base_model_tp_plan": {"layers.*": "colwise"},
    "license": "gemma",
    "language": ["en"],
    "author": "x",
    "model_name": "x",
    "base_model": "google/recurrentgemma-2b",
    "datasets": ["x"],
    "tags": ["x"],
    "pipeline_tag": "text-generation",
    "library_name": "transformers",
    "use_flash_attention_2": True,
    "use_flash_attn": True,
    "gradient_checkpointing": True,
    "use_gradient_checkpointing": "unsloth",
    "use_liger_kernel": True,
    "disable_custom_kernels": True,
    "train_batch_size": 4,
    "max_grad_norm": 1.0,
    "warmup_ratio": 0.1,
    "model_max_length": 8192,
    "max_sequence_length": 8192,
    "seq_length": 8192,
    "neftune_noise_alpha": 5,
    "hidden_dropout": 0.1,
    "resid_pdrop": 0.1,
    "initializer_factor": 1.0,
    "init_std": 0.02,
    "router_aux_loss_coef": 0.001,
    "z_loss_weight": 1e-4,
    "onnx_version": "1.16",
    "seed": 3407,
    "is_llama_config": True,
    "mergekit_version": "0.0.5",
    "torch_compile": False,
    "tie_word_embedding_": None,
}
# Fields by which other models compute something else, at values that do.
OTHERS = {
    "query_pre_attn_scalar": 256,
    "residual_multiplier": 0.22,
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.0078125,
    "logits_scaling": 8.0,
    "logit_scale": 0.0625,
    "output_multiplier": 0.5,
    "mup_enabled": True,
    "rescale_every": 6,
    "mlp_bias": True,
    "use_bias": True,
    "qkv_bias": True,
    "lm_head_bias": True,
    "use_qk_norm": True,
    "qk_layernorm": True,
    "norm_type": "layernorm",
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "norm_eps": 1e-5,
    "pre_norm": True,
    "residual_in_fp32": True,
    "use_parallel_residual": True,
    "parallel_attn": True,
    "new_decoder_architecture": True,
    "alibi": True,
    "rotary_pct": 0.25,
    "rotary_dim": 32,
    "rotary_emb_base": 10000,
    "rope_pct": 0.5,
    "rope_local_base_freq": 10000.0,
    "rope_ratio": 2,
    "rope_interleave": True,
    "no_rope_layers": [1],
    "position_embedding_type": "relative",
    "positional_encoding_type": "alibi",
    "relative_attention_num_buckets": 32,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
    "output_logit_soft_cap": 30.0,
    "clip_qkv": 8.0,
    "sliding_window_pattern": 6,
    "use_sliding_window": True,
    "max_window_layers": 28,
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "attention_type": "global",
    "attn_config": {"attn_type": "x"},
    "attn_output_gate": True,
    "attention_sinks": 4,
    "attention_chunk_size": 8192,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "n_routed_experts": 64,
    "moe_intermediate_size": 1408,
    "num_kv_shared_layers": 10,
    "kv_lora_rank": 512,
    "v_head_dim": 128,
    "n_embd": 2560,
    "n_layer": 26,
    "n_head": 10,
    "n_inner": 7680,
    "d_model": 2560,
    "d_ff": 7680,
    "num_layers": 26,
    "num_heads": 10,
    "ffn_dim": 7680,
    "embedding_size": 128,
    "hidden_act_param": "x",
    "activation_function": "relu",
    "hidden_sparsity": [0.9],
    "state_size": 16,
    "time_step_limit": [0.0, 1.0],
    "conv_kernel": 4,
    "use_conv_bias": True,
    "mamba_d_conv": 4,
    "linear_num_key_heads": 16,
    "scale_embedding": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": True,
    "normalize_embedding": True,
    "tie_weights": True,
    "multi_query": True,
    "text_config": {"hidden_size": 3},
    "vision_config": {"hidden_size": 3},
    "quantization": {"bits": 4, "group_size": 64},
    "transformers_weights": "other.safetensors",
    "layer_scale": True,
    "use_mlp_gate": True,
    "mixer_types": ["x"],
}
NEAR = {
    "hidden_sise": 2560,
    "hiden_size": 2560,
    "atention_bias": True,
    "logit_soft_cap": 30.0,
    "logits_softcap": 30.0,
    "rms_norm_epsilon": 1e-6,
    "conv1d_widht": 4,
    "lru_with": 2560,
    "num_key_value_head": 1,
    "vocab_sizes": 256000,
    "attention_window": 2048,
    "tie_word_embedding": True,
    "embeddings_scale_by_sqrt": False,
    "rope_thetta": 1.0,
}


@pytest.mark.parametrize("name", TOOLS)
def test_what_tools_write_is_said_and_no_more(name: str) -> None:
    fields = {**RELEASED_2B, name: TOOLS[name]}
    assert parse_config(fields, "x")[0] == parse_config(RELEASED_2B, "x")[0]
    (note,) = config_notes(fields, "folder/config.json")
    assert note.startswith("folder/config.json") and repr(name) in note


def test_all_of_them_in_one_sentence() -> None:
    (note,) = config_notes({**RELEASED_2B, **TOOLS}, "x")
    assert all(name in note for name in list(TOOLS)[:40])
    assert config_notes(RELEASED_2B, "x") == ()


@pytest.mark.parametrize("name", OTHERS)
def test_what_changes_other_models_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_config({**RELEASED_2B, name: OTHERS[name]}, "folder/config.json")
    text = str(caught.value)
    assert text.startswith("folder/config.json: ") and name in text and "\n" not in text


@pytest.mark.parametrize("name", [*OTHERS, "residual_multiplier", "attention_multiplier"])
def test_values_that_ask_for_nothing_pass(name: str) -> None:
    for value in (None, False, [], {}) + ((1, 1.0) if "multiplier" in name else ()):
        (note,) = config_notes({**RELEASED_2B, name: value}, "x")
        assert name in note
        parse_config({**RELEASED_2B, name: value}, "x")
    if "multiplier" in name:
        with pytest.raises(CheckpointError):
            parse_config({**RELEASED_2B, name: 0.0}, "x")


@pytest.mark.parametrize("name", NEAR)
def test_what_is_nearly_a_name_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        parse_config({**RELEASED_2B, name: NEAR[name]}, "x")


@pytest.mark.parametrize("name", ["lru_widht", "n_layer", "residual_multiplier", "unsloth_fixed"])
def test_our_own_spelling_is_held_alike(name: str) -> None:
    fields = {"model_type": "griffin", **HUGGINGFACE.to_dict(), name: 3}
    if name == "unsloth_fixed":
        assert parse_config(fields, "x")[0] == HUGGINGFACE
        assert name in config_notes(fields, "x")[0]
    else:
        with pytest.raises(CheckpointError, match=name):
            parse_config(fields, "x")


def test_bookkeeping_is_no_computing_by_accident() -> None:
    asking = [name for name, value in TOOLS.items() if value is not None]
    assert "attention_dropout" in BOOKKEEPING and not any(map(computes, asking))


# What of theirs is bookkeeping, or of training alone.
PASSED = """
    activation_dropout attn_pdrop context_length dropout embd_pdrop embedding_dropout
    ffn_dropout hidden_dropout init_device initializer_std layerdrop max_seq_len n_ctx
    n_positions pretraining_tp resid_dropout resid_pdrop residual_dropout
    router_aux_loss_coef router_jitter_noise rope_parameters summary_type time_step_floor
    time_step_init_scheme time_step_max time_step_min use_associative_scan use_mamba_kernels
    use_mambapy verbose z_loss_coefficient chunk_size_feed_forward classifier_dropout
    attention_dropout summary_first_dropout summary_use_proj
    apply_residual_connection_post_layernorm num_logits_to_keep use_cache slow_but_exact
    logits_to_keep emb_pdrop init_std
"""


@pytest.mark.thorough
def test_the_configs_of_text_models_are_told_apart() -> None:
    """Every field of a few dozen configs of transformers, beyond ours: which are refused."""
    transformers = pytest.importorskip("transformers")
    passed: set[str] = set()
    for name in ("Llama", "Gemma", "Gemma2", "Gemma3Text", "Mistral", "Qwen2", "Qwen3", "Phi3",
                 "Mamba", "Mamba2", "FalconMamba", "GPTNeoX", "Falcon", "Bloom", "MPT", "Granite",
                 "Cohere", "Olmo2", "StableLm", "Rwkv", "Jamba", "Bamba", "Zamba", "OPT",
                 "Starcoder2", "Persimmon", "Nemotron", "GPT2", "Mixtral"):  # fmt: skip
        config = getattr(transformers, f"{name}Config", None)
        if config is None:
            continue
        fields = set(config().to_dict()) - BOOKKEEPING - set(RELEASED_2B)
        passed |= {field for field in fields if not computes(field)}
    allowed = set(PASSED.split())
    assert not passed - allowed, passed - allowed


MEANT = RELEASED_2B.keys() | config_json._MEANT
names = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.none() | st.booleans() | st.integers() | st.floats() | names | st.lists(st.integers())


@pytest.mark.thorough
@settings(max_examples=50)
@given(st.dictionaries(names, values | st.dictionaries(names, values), max_size=4))
def test_any_field_is_said_or_refused(fields: dict[str, Any]) -> None:
    fields = {name: value for name, value in fields.items() if name not in MEANT}
    try:
        parse_config({**RELEASED_2B, **fields}, "x")
    except CheckpointError as error:
        assert str(error).isprintable()
        return
    said = " ".join(config_notes({**RELEASED_2B, **fields}, "x"))
    # Fields of a generation's settings that ask for nothing say nothing, whoever draws them.
    idle = {name for name in GENERATION if not generation_fields({name: fields.get(name)})}
    assert all(shown(name) in said for name in fields if name not in BOOKKEEPING | idle)


def test_it_is_said_once_a_load(tmp_path: Path) -> None:
    folder = write_toy(tmp_path)
    edit_config(folder, unsloth_version="1", license="x", repetition_penalty=1.2)
    for load in (griffin.load, griffin.load_model, checkpoints.load_model):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load(folder)
        said = [str(w.message) for w in caught if w.category is CheckpointWarning]
        assert sum("'unsloth_version', 'license'" in text for text in said) == 1, load
        assert sum("repetition_penalty" in text for text in said) == 1
    assert griffin.load(folder).defaults.repetition_penalty == 1.2


def test_an_archive_beside_a_config_says_it_too(tmp_path: Path) -> None:
    from tests.support.toy_checkpoints import DEEPMIND

    checkpoints.save_model(make_model(DEEPMIND), tmp_path / "m")
    checkpoints.convert(tmp_path / "m", tmp_path / "pt", "deepmind-torch")
    edit_config(tmp_path / "pt", unsloth_version="1")
    assert "unsloth_version" in checkpoints.open(tmp_path / "pt").notes[0]
    assert json.loads((tmp_path / "pt" / "config.json").read_text())


def test_the_terminal_says_it_as_a_note(tmp_path: Path) -> None:
    folder = write_toy(tmp_path, num_beams=4)
    edit_config(folder, unsloth_version="1")
    asked = ["generate", "--model", str(folder), "--max-tokens", "1", "x"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0 and "Warning" not in done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2 and "'unsloth_version'" in notes[0] + notes[1]
    assert "num_beams=4" in notes[0] + notes[1]


@pytest.mark.parametrize("value", [None, 2.0])
def test_a_setting_of_generation_is_said_where_it_asks_for_something(value: Any) -> None:
    said = " ".join(config_notes({**RELEASED_2B, "max_time": value}, "x"))
    assert ("max_time" in said) == (value is not None)
