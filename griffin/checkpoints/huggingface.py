"""Hugging Face folders, and our own saves, which are the same files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin.checkpoints.checkpoint import Checkpoint, same_values
from griffin.checkpoints.config_json import read_config
from griffin.checkpoints.errors import CheckpointError
from griffin.checkpoints.names import EMBEDDING, HEAD
from griffin.checkpoints.quantization_config import read_quantization
from griffin.checkpoints.quantized import QuantizedSource
from griffin.checkpoints.safetensors_files import SafetensorsSource
from griffin.checkpoints.source import Source
from griffin.model import GriffinConfig


def open_huggingface(
    path: Path, config: GriffinConfig | Mapping[str, Any] | None = None
) -> Checkpoint:
    """Open a folder with config.json and safetensors, or one safetensors file.

    config: fields that take precedence over config.json, or a whole GriffinConfig instead of it.
    Raises CheckpointError for anything that does not fit together.
    """
    folder = path if path.is_dir() else path.parent
    source = SafetensorsSource(path)
    if isinstance(config, GriffinConfig):
        parsed, says_tied = config, True
    else:
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{folder} has no config.json; expected one, or config=GriffinConfig(...)"
            )
        parsed, says_tied = read_config(folder / "config.json")
        if config:
            parsed = parsed.replace(**config)
            says_tied = says_tied or "tie_embeddings" in config
    config_json = folder / "config.json"
    if config_json.is_file() and (quantization := read_quantization(config_json)):
        shape = parsed

        def reopen() -> Source:
            return QuantizedSource(SafetensorsSource(path), shape, quantization)

        return Checkpoint(parsed, "huggingface", reopen, folder)
    if parsed.tie_embeddings and HEAD in source.names():
        if source.shape(HEAD) != source.shape(EMBEDDING):
            raise CheckpointError(
                f"{source.where(HEAD)}: {HEAD} has shape {list(source.shape(HEAD))}, expected that"
                f" of the embedding it is tied to, {list(source.shape(EMBEDDING))}"
            )
        if not same_values(source.read(HEAD), source.read(EMBEDDING)):
            if says_tied:
                raise CheckpointError(
                    f"{source.where(HEAD)}: {HEAD} differs from {EMBEDDING}, expected equal values"
                    " as the config ties them; pass config={'tie_embeddings': False} to use it"
                    " as a separate head"
                )
            parsed = parsed.replace(tie_embeddings=False)
        source.release()
    return Checkpoint(parsed, "huggingface", lambda: SafetensorsSource(path), folder, source=source)
