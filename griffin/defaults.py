"""What the files beside a model ask for when text is generated.

generation_config.json, or where there is none the fields of config.json that belong there, as
transformers reads them. What SamplingParams have a field for is done; everything else that asks for
something is said by name, once a load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from griffin.checkpoints import CheckpointError
from griffin.checkpoints.config_fields import GENERATION, generation_fields
from griffin.foreign import is_there, read_object, shown
from griffin.sampling import CHAT, SamplingParams

# Fields that have a twin among SamplingParams.
_TWINS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "stop_strings": "stop",
}
_DONE = {
    *(*_TWINS, "do_sample", "eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
    *("bad_words_ids", "sequence_bias"),
}
# Fields about how transformers computes or returns what it generates; none changes a text here.
_BOOKKEEPING = frozenset(
    (
        *("_commit_hash", "_from_model_config", "transformers_version", "trust_remote_code"),
        *("bos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache", "cache_config"),
        *("cache_implementation", "max_cache_len", "return_legacy_cache", "prefill_chunk_size"),
        *("output_attentions", "output_hidden_states", "output_logits", "output_scores"),
        *("return_dict_in_generate", "compile_config", "disable_compile", "low_memory"),
        *("continuous_batching_config", "is_assistant", "num_assistant_tokens"),
        *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "target_lookbehind"),
        *("prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_early_exit"),
        *("assistant_lookbehind", "assistant_ensemble_weight", "speculation_type"),
    )
)


class Defaults(NamedTuple):
    """Sampling where a call does not say otherwise, the same for a chat, ids that end every answer,
    and what of the files is not done, one sentence a file."""

    params: SamplingParams
    chat: SamplingParams
    stop_ids: frozenset[int]
    notes: tuple[str, ...]


def read_defaults(folder: Path, vocab_size: int) -> Defaults:
    """Return what a model's folder asks for; CheckpointError, naming file and field, for what is
    no such file or no such value."""
    path, config = folder / "generation_config.json", folder / "config.json"
    inner = read_object(config, refuse=CheckpointError) if is_there(config) else {}
    asked = generation_fields(inner)
    if not is_there(path):
        asked |= {name: inner[name] for name in ("eos_token_id",) if name in inner}
        return _defaults(asked, config, vocab_size, ())
    fields = read_object(path, refuse=CheckpointError)
    other = [name for name, value in asked.items() if fields.get(name) != value]
    notes: tuple[str, ...] = ()
    if other:
        names = ", ".join(f"{name}={shown(asked[name], 40)}" for name in other)
        notes = (f"{config} asks for {names}; {path.name} beside it counts alone",)
    return _defaults(fields, path, vocab_size, notes)


def _defaults(
    fields: dict[str, Any], path: Path, vocab_size: int, notes: tuple[str, ...]
) -> Defaults:
    try:
        values = {
            ours: fields[name] for name, ours in _TWINS.items() if fields.get(name) is not None
        }
        if fields.get("do_sample") is False:
            values["temperature"] = 0.0
        least, most = values.get("min_tokens"), values.get("max_tokens", SamplingParams.max_tokens)
        if type(least) is type(most) is int:
            values["min_tokens"] = min(least, most)  # as in transformers
        values["logit_bias"], values["suppress_ids"], left = _of_single_ids(fields)
        values["begin_suppress_ids"] = tuple(_ids(fields, "begin_suppress_tokens"))
        stop_ids = _ids(fields, "eos_token_id")
        params = SamplingParams(**values)
        params.replace(stop_ids=stop_ids).check_vocabulary(vocab_size)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    left += [
        f"{name}={shown(value, 40)}"
        for name, value in fields.items()
        if name not in _DONE | _BOOKKEEPING
        and value is not None
        and value not in GENERATION.get(name, ())
    ]
    if left:
        notes += (f"{path} asks for what is not done here: {', '.join(left)}",)
    return Defaults(params, SamplingParams(**CHAT | values), frozenset(stop_ids), notes)


def _of_single_ids(
    fields: dict[str, Any],
) -> tuple[dict[int, float], tuple[int, ...], list[str]]:
    """Return biases and ids never to be chosen, and what asks for the like of longer words."""
    suppressed, left = _ids(fields, "suppress_tokens"), list[str]()
    end = _ids(fields, "eos_token_id")
    for word in _words(fields, "bad_words_ids"):
        if len(word) == 1:
            # transformers lets no bad word be what ends the text.
            suppressed += [i for i in word if i not in end]
        else:
            left.append(f"bad_words_ids of several tokens ({shown(word, 40)})")
    bias: dict[int, float] = {}
    for entry in _words(fields, "sequence_bias"):
        word, number = entry if len(entry) == 2 else (entry, None)
        alone = isinstance(word, list) and len(word) == 1 and type(word[0]) is int
        if alone and isinstance(number, (int, float)) and -100 <= number <= 100:
            bias[word[0]] = number
        else:
            left.append(f"sequence_bias beyond 100, or of several tokens ({shown(entry, 40)})")
    return bias, tuple(suppressed), left


def _ids(fields: dict[str, Any], name: str) -> list[int]:
    found = fields.get(name)
    found = [] if found is None else found if isinstance(found, list) else [found]
    if wrong := [i for i in found if type(i) is not int or i < 0]:
        raise ValueError(f"{name} must be token ids, not {shown(wrong[0])}")
    return list(dict.fromkeys(found))


def _words(fields: dict[str, Any], name: str) -> list[list[Any]]:
    found = fields.get(name)
    found = [] if found is None or found == {} else found
    if not isinstance(found, list) or not all(isinstance(word, list) for word in found):
        raise ValueError(f"{name} must be a list of lists, not {shown(found)}")
    return found
