"""What a safetensors file says of itself beside its tensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open


def read_metadata(file: Path) -> dict[str, str]:
    """Return a file's metadata; ValueError, naming it, for one that is no safetensors file."""
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file: {error}") from error
