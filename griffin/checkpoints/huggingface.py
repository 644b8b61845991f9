"""Hugging Face folders, and our own saves, which are the same files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin.checkpoints.checkpoint import Checkpoint, same_values
from griffin.checkpoints.config_json import config_notes, parse_config, stored_type
from griffin.checkpoints.errors import CheckpointError
from griffin.checkpoints.names import EMBEDDING, HEAD
from griffin.checkpoints.quantization_config import parse_quantization
from griffin.checkpoints.quantized import QuantizedSource
from griffin.checkpoints.source import Source
from griffin.checkpoints.weights_folder import find_weights
from griffin.foreign import is_there, read_object
from griffin.model import GriffinConfig


def open_huggingface(
    path: Path, config: GriffinConfig | Mapping[str, Any] | None = None
) -> Checkpoint:
    """Open a folder with config.json and safetensors, one safetensors file, or an index of shards.

    config: fields that take precedence over config.json, or a whole GriffinConfig instead of it.
    Raises CheckpointError for anything that does not fit together.
    """
    folder = path if path.is_dir() else path.parent
    weights = find_weights(path)
    source, notes = weights.source(), weights.notes
    config_json = folder / "config.json"
    fields: dict[str, Any] = {}
    if is_there(config_json):
        fields = read_object(config_json, refuse=CheckpointError)
    if isinstance(config, GriffinConfig):
        parsed, says_tied = config, True
        quantization = parse_quantization(fields, str(config_json))
    else:
        if not fields:
            raise CheckpointError(
                f"{folder} has no config.json; expected one, or config=GriffinConfig(...)"
            )
        parsed, says_tied = parse_config(fields, str(config_json))
        quantization = parse_quantization(fields, str(config_json))
        notes += config_notes(fields, str(config_json))
        if config:
            parsed = parsed.replace(**config)
            says_tied = says_tied or "tie_embeddings" in config
    stated = stored_type(fields, str(config_json))
    if quantization:
        shape = parsed

        def reopen() -> Source:
            return QuantizedSource(weights.source(), shape, quantization)

        return Checkpoint(parsed, "huggingface", reopen, folder, notes=notes, stated=stated)
    if parsed.tie_embeddings and {HEAD, EMBEDDING} <= set(source.names()):
        if not _same_shape(source, parsed):
            raise CheckpointError(
                f"{source.where(HEAD)}: {HEAD} has shape {list(source.shape(HEAD))}, expected that"
                f" of the embedding it is tied to, {list(source.shape(EMBEDDING))}"
            )
        rows = parsed.vocab_size
        if not same_values(source.read(HEAD)[:rows], source.read(EMBEDDING)[:rows]):
            if says_tied:
                raise CheckpointError(
                    f"{source.where(HEAD)}: {HEAD} differs from {EMBEDDING}, expected equal values"
                    " as the config ties them; pass config={'tie_embeddings': False} to use it"
                    " as a separate head"
                )
            parsed = parsed.replace(tie_embeddings=False)
        source.release()
    return Checkpoint(
        parsed, "huggingface", weights.source, folder, source=source, notes=notes, stated=stated
    )


def _same_shape(source: Source, config: GriffinConfig) -> bool:
    """Return whether head and embedding are equally wide and have a row for every id at least:
    rows beyond are padding."""
    head, embedding = source.shape(HEAD), source.shape(EMBEDDING)
    return (
        len(head) == len(embedding) == 2
        and head[1] == embedding[1]
        and (head == embedding or min(head[0], embedding[0]) >= config.vocab_size)
    )
