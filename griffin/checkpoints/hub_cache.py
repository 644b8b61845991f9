"""The models in the Hub's cache: which are here, how whole they are, and taking one away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin.checkpoints.config_json import HUGGINGFACE, OURS
from griffin.checkpoints.errors import CheckpointError
from griffin.checkpoints.safetensors_files import INDEX, SINGLE
from griffin.foreign import read_json


@dataclass(frozen=True, kw_only=True)
class CachedModel:
    """One revision of a repository, as far as it was downloaded.

    folder:  of its files. nbytes: that these take on the disk.
    format:  "int8", "int4", ... of quantized weights, else the type of the weights; "" if the
             config does not say.
    missing: files of weights that are not here, or not whole.
    used:    when it was read last, in seconds since 1970.
    """

    repo: str
    revision: str
    refs: tuple[str, ...]
    folder: Path
    nbytes: int
    format: str
    missing: tuple[str, ...]
    used: float


def cached_models() -> list[CachedModel]:
    """Return the Griffin models in the Hub's cache, those read last first."""
    found = []
    for repo in (one for one in _repos() if one.repo_type == "model"):
        for revision in repo.revisions:
            folder = Path(revision.snapshot_path)
            config = _config(folder)
            if config is None and not repo.repo_id.rpartition("/")[2].startswith("recurrentgemma"):
                continue
            made = CachedModel(
                repo=repo.repo_id,
                revision=revision.commit_hash,
                refs=tuple(sorted(revision.refs)),
                folder=folder,
                nbytes=revision.size_on_disk,
                format="" if config is None else _format(config),
                missing=_missing(folder),
                used=repo.last_accessed,
            )
            found.append(made)
    return sorted(found, key=lambda one: (-one.used, one.repo, one.revision))


def remove_cached(repo: str, revision: str | None = None) -> int:
    """Take a repository, or one revision of it, out of the Hub's cache; return the bytes freed.

    revision: a branch, tag or commit, or the beginning of one. Raises CheckpointError if it is not
              there.
    """
    from huggingface_hub import constants, scan_cache_dir

    there = cached_models()
    commits = [
        one.revision
        for one in there
        if one.repo == repo
        and (revision is None or revision in one.refs or one.revision.startswith(revision))
    ]
    if not commits:
        what = repo if revision is None else f"{repo} at {revision}"
        here = sorted({one.repo for one in there})
        raise CheckpointError(
            f"{what} is not in the cache; there are {', '.join(here) or 'no models'}"
        )
    strategy = scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(*commits)
    strategy.execute()
    return int(strategy.expected_freed_size)


def _repos() -> Iterable[Any]:
    """Return what the Hub's client says is in its cache, nothing where none was made so far."""
    from huggingface_hub import constants, scan_cache_dir

    there = Path(constants.HF_HUB_CACHE).is_dir()
    return scan_cache_dir(constants.HF_HUB_CACHE).repos if there else ()


def _config(folder: Path) -> dict[str, Any] | None:
    """Return a config.json that is a Griffin's."""
    try:
        fields = read_json(folder / "config.json")
    except (ValueError, OSError):
        return None
    ours = isinstance(fields, dict) and fields.get("model_type") in (HUGGINGFACE, OURS)
    return fields if ours else None


def _format(config: dict[str, Any]) -> str:
    quantization = config.get("quantization_config")
    packed = quantization.get("format") if isinstance(quantization, dict) else None
    return str(packed or config.get("dtype") or config.get("torch_dtype") or "")


def _missing(folder: Path) -> tuple[str, ...]:
    """Return the files of weights that are not here."""
    index = folder / INDEX
    if not index.is_file():
        return () if any(folder.glob("*.safetensors")) else (SINGLE,)
    try:
        named = set(read_json(index)["weight_map"].values())
    except (ValueError, OSError, LookupError, AttributeError, TypeError):
        return (INDEX,)
    return tuple(sorted(name for name in named if not (folder / str(name)).is_file()))
