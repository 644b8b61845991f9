"""The fields of strangers' config.json: which decide what is computed, which are bookkeeping.

Every public tool writes fields of its own, so an unknown field alone is no reason to refuse a
model: it is said. But it may also ask for something that this model does not compute. Those are
told by the words in their names, which the configs of other models share, and by their nearness
to a name that has a meaning here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from griffin.checkpoints.errors import listed
from griffin.foreign import shown


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


# Fields every Hugging Face config may carry and no forward pass of ours depends on: said by nobody.
BOOKKEEPING = _set(
    """
    _attn_implementation _commit_hash _name_or_path add_cross_attention architectures
    attention_dropout attn_implementation auto_map bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id dtype eos_token_id
    final_w_init_variance_scale finetuning_task id2label initializer_range is_decoder
    is_encoder_decoder label2id max_position_embeddings output_attentions output_hidden_states
    output_router_logits
    pad_token_id prefix problem_type pruned_heads return_dict sep_token_id task_specific_params
    tf_legacy_loss tie_encoder_decoder tokenizer_class torch_dtype torchscript
    transformers_version use_bfloat16 use_cache w_init_variance_scale
    """
)
# What older tools wrote into config.json and belongs into generation_config.json, with the values
# that ask for nothing. So does what transformers has there by now.
GENERATION: dict[str, tuple[Any, ...]] = {
    "max_length": (20,),
    "max_new_tokens": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "early_stopping": (False,),
    "max_time": (),
    "stop_strings": ([],),
    "do_sample": (False,),
    "num_beams": (1,),
    "use_mtp": (False,),
    "temperature": (1.0,),
    "top_k": (50,),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "top_h": (),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "length_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],),
    "renormalize_logits": (False,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "remove_invalid_values": (False,),
    "exponential_decay_length_penalty": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ([], {}),
    "token_healing": (False,),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "num_return_sequences": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "diversity_penalty": (0.0,),
    "num_beam_groups": (1,),
    "constraints": ([],),
    "force_words_ids": ([],),
    "return_dict_in_generate": (False, True),
    "output_scores": (False, True),
}
# Words in the names of fields that change what a model computes.
_COMPUTING = _set(
    """
    act activation activations alibi altup attend attn attention bias biases block blocks bypass cap
    capping causal channels clamp clip conv convolution decoder dense depth depths dilation dim dims
    divisor embed embd embedding embeddings encoder eps epsilon expansion expand expert experts
    factor ffn ff gate gated gating gelu groups head heads hidden inner intermediate layer layers
    layernorm layerscale linear logit logits lru mamba mixer mlp moe mult multiplier mup norm norms
    normalize normalization pattern pct percentage pooling positional postnorm prenorm proj
    projection qk qkv quantization rank ratio recurrent relative rescale resid residual rms rmsnorm
    rnn rope rotary rotate rotated router scalar scale scaled scales scaling sigmoid silu sinusoidal
    size sizes sliding softcap softcapping softmax sparse ssm swiglu theta tie tied timescale topk
    vocab width widths window windows yarn
    """
)
# Words of fields that say how something is computed, trained or stored, not what.
_HOW = _set(
    """
    autoset batch cache checkpoint checkpointing coef drop dropout flash fused grad gradient
    implementation init initializer jitter kernels layerdrop liger loss lr offload offloading pdrop
    pretraining std train training unsloth version warmup
    """
)
# Names that change it and hold no such word.
_OTHERS = _set(
    """
    audio_config d_ff d_kv d_model dff language_config legacy llm_config mem_len multi_query n_embd
    n_inner new_decoder_architecture prefix_lm text_config time_step_limit transformers_weights
    vision_config
    """
)
# Where 1 asks for nothing, and 0 for much.
_FACTORS = _set("mult multiplier scalar scale scaling factor temperature divisor")


def unknown_fields(fields: Mapping[str, Any], meant: Collection[str]) -> list[str]:
    """Return the names of fields that mean nothing: neither to this model nor to others.

    meant: the names that decide what this model computes. Raises ValueError for the names that
    mean something to other models, or nearly to this one, unless their value asks for nothing.
    """
    known = {*meant, *BOOKKEEPING, *GENERATION}
    unknown = [name for name in fields if name not in known]
    refused: list[str] = []
    for name in unknown:
        near = difflib.get_close_matches(name, meant, n=1, cutoff=0.85)
        # More words beside all of a name's are a name of their own: use_sliding_window.
        if near and fields[name] is not None and not _words(name) > _words(near[0]):
            refused.append(f"{shown(name)} (did you mean {near[0]!r}?)")
        elif computes(name) and not _asks_for_nothing(name, fields[name]):
            refused.append(f"{shown(name)}={shown(fields[name], 40)}")
    if refused:
        raise ValueError(
            f"has fields that this model knows nothing of and that may change what it computes:"
            f" {listed(refused)}"
        )
    return unknown


def computes(name: str) -> bool:
    """Return whether a field of another model's config, by its name, changes what it computes."""
    words = _words(name)
    return name in _OTHERS or bool(words & _COMPUTING and not words & _HOW)


def generation_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the fields that ask for something when text is generated."""
    return {
        name: value
        for name, value in fields.items()
        if name in GENERATION and value is not None and value not in GENERATION[name]
    }


def _words(name: str) -> set[str]:
    parts = re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", name)
    return {re.sub(r"\d+d?", "", part).lower() for part in parts}


def _asks_for_nothing(name: str, value: Any) -> bool:
    if value is None or value is False or value in ("", [], {}):
        return True
    neutral = 1 if _words(name) & _FACTORS else 0
    return isinstance(value, (int, float)) and value is not True and value == neutral
