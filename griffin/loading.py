"""From a name, a folder or a repository to a model, with its tokenizer or alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from griffin import checkpoints
from griffin.llm import LLM
from griffin.model import Griffin, GriffinConfig
from griffin.quant import fastest_layout
from griffin.sampling import SamplingParams
from griffin.text import Tokenizer

__all__ = ["find_tokenizer", "load", "load_model"]

# generation_config.json -> SamplingParams
_DEFAULTS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}


def load(
    path_or_repo: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> LLM:
    """Load a model with its tokenizer.

    path_or_repo: "nano" (the bundled model), a folder or archive of any released layout, or a
                  repository of the Hugging Face Hub, such as "google/recurrentgemma-2b-it".
    dtype:        type of the weights, "bfloat16" or torch.bfloat16; as stored if omitted.
    device:       "cpu", "cuda", ...; a GPU if there is one, if omitted.
    config:       for DeepMind archives of unreleased shapes: what the files do not say.
    tokenizer:    folder or file of the tokenizer; beside the weights, or in the folder above, if
                  omitted.
    revision:     branch, tag or commit of a repository.
    quantize:     "int8" or "int4": round the weights while loading. What `griffin quantize` wrote
                  needs no such word. If omitted, bfloat16 weights on the CPU are laid out for the
                  native kernels, with their values as they are ("bf16"); `load_model` leaves them
                  where they lie.
    Raises ValueError for files that are missing, torn or do not fit together, and says which.
    """
    source = checkpoints.open(path_or_repo, config=config, revision=revision)
    folder = source.folder
    text = Tokenizer.open(tokenizer if tokenizer is not None else find_tokenizer(folder))
    if text.vocab_size > source.config.vocab_size:
        raise ValueError(
            f"the tokenizer {text.path} has {text.vocab_size} ids, the model in {folder} only "
            f"{source.config.vocab_size} embeddings; they do not belong together"
        )
    defaults, stop_ids = _generation_config(
        folder / "generation_config.json", source.config.vocab_size
    )
    place = _device(device)
    if quantize is None and source.quantization is None:
        stored = source.dtype("model.embed_tokens.weight")
        quantize = fastest_layout(
            stored if dtype is None else checkpoints.parse_dtype(dtype), place
        )
    model = checkpoints.load_model(source, dtype=dtype, device=place, quantize=quantize)

    # Opened anew: nothing stays mapped for a digest that may never be asked for.
    def weights() -> str:
        return checkpoints.open(path_or_repo, config=config, revision=revision).digest()

    return LLM(
        model.eval(),
        text,
        defaults=defaults,
        stop_ids=stop_ids,
        name=str(path_or_repo),
        weights=weights,
    )


def load_model(
    path_or_repo: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> Griffin:
    """Load the model alone; no tokenizer is needed. Arguments as for `load`."""
    source = checkpoints.open(path_or_repo, config=config, revision=revision)
    return checkpoints.load_model(
        source, dtype=dtype, device=_device(device), quantize=quantize
    ).eval()


def _device(device: torch.device | str | None) -> torch.device | str:
    if device is not None:
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def find_tokenizer(folder: Path) -> Path:
    """Return where the tokenizer lies: beside the weights, or above them (Kaggle)."""
    for place in (folder, folder.parent):
        if any((place / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            return place
    raise ValueError(
        f"{folder} has no tokenizer.json or tokenizer.model, nor has the folder above; name one"
        " with tokenizer=..., or use griffin.load_model for the model alone"
    )


def _generation_config(path: Path, vocab_size: int) -> tuple[SamplingParams, frozenset[int]]:
    """Read sampling defaults and stop ids from generation_config.json; both empty without one."""
    if not path.is_file():
        return SamplingParams(), frozenset()
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it holds no JSON object")
        values = {
            ours: fields[name] for name, ours in _DEFAULTS.items() if fields.get(name) is not None
        }
        if fields.get("do_sample") is False:
            values["temperature"] = 0.0
        stop = fields.get("eos_token_id")
        stop_ids = [] if stop is None else stop if isinstance(stop, list) else [stop]
        params = SamplingParams(**values)
        params.replace(stop_ids=stop_ids).check_vocabulary(vocab_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return params, frozenset(stop_ids)
