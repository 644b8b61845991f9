"""Recognise what a path or a repository holds, and open it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.config_json import config_notes, parse_config
from griffin.checkpoints.deepmind_flax import find_orbax, open_deepmind_flax
from griffin.checkpoints.deepmind_torch import open_deepmind_torch
from griffin.checkpoints.errors import CheckpointError, listed
from griffin.checkpoints.huggingface import open_huggingface
from griffin.checkpoints.model_names import meant, resolve
from griffin.checkpoints.safetensors_files import INDEX
from griffin.foreign import is_there, open_file, read_object
from griffin.model import GriffinConfig

_PICKLES = {".pt", ".pth", ".bin", ".ckpt"}
# What trainers leave beside weights: of another question than which model this is.
_TRAINING = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args)\b.*|rng_state_\d+.*")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def open_checkpoint(
    path_or_repo: str | Path,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> Checkpoint:
    """Open weights of any known layout without reading them.

    path_or_repo: a Hugging Face folder or repository ("google/recurrentgemma-2b", or that without
                  its owner), a safetensors file or an index of several, DeepMind's torch archive
                  (.pt) or Flax archive (an Orbax folder), the folder around one, or "nano", the
                  bundled model. Of a folder that holds several models, or an adapter beside one,
                  name the file that is meant.
    config:       what the files do not say, as GriffinConfig fields, a whole GriffinConfig or the
                  fields of a config.json. DeepMind's archives carry no config: the released shapes
                  are known, any other needs attention_window_size, logits_soft_cap and
                  scale_embeddings.
    revision:     branch, tag or commit of a repository, and of nothing else.
    Raises CheckpointError (a ValueError) that names file, tensor, what was expected and what was
    found.
    """
    if isinstance(config, Mapping) and "model_type" in config:
        config = parse_config(config, "config")[0]
    given, path_or_repo = path_or_repo, resolve(path_or_repo)
    path = Path(path_or_repo).expanduser()
    if not path.exists():
        from griffin.checkpoints.hub import download, is_repo_id

        if isinstance(path_or_repo, Path) or not is_repo_id(path_or_repo):
            raise CheckpointError(
                f"{path_or_repo} does not exist; expected a folder, an archive, or a repository"
                f" such as google/recurrentgemma-2b{meant(str(path_or_repo))}"
            )
        path = download(path_or_repo, revision)
    elif revision is not None:
        raise CheckpointError(
            f"{given} is no repository of the Hub but {_local(given, path)}, which has no"
            f" revisions: leave revision {revision!r} out"
        )
    if not path.is_dir():
        return _open_file(path, config)
    if adapter := [name for name in _ADAPTER if is_there(path / name)]:
        raise CheckpointError(
            f"{path} holds an adapter ({listed(adapter)}), which is not applied: merge it into its"
            " base model (merge_and_unload in peft), or name the file of the weights that are meant"
        )
    archives, trees = _archives(path), find_orbax(path)
    whole = any(path.glob("*.safetensors")) or is_there(path / INDEX)
    if len(archives) + len(trees) + whole > 1:
        names = [p.name for p in (*archives, *trees)] + ["safetensors"] * whole
        raise CheckpointError(f"{path} holds several checkpoints ({listed(names)}); name one")
    if whole:
        checkpoint = open_huggingface(path, config)
    elif trees or archives:
        checkpoint = _open_archive(path, archives, trees, config)
    else:
        raise CheckpointError(_nothing(path))
    unread = [
        entry.name
        for entry in sorted(path.iterdir())
        if entry.suffix in _PICKLES and entry not in archives
        if not _TRAINING.fullmatch(entry.name)
    ]
    if unread:
        checkpoint.notes += (f"{path} also holds what is not read: {listed(unread)}",)
    return checkpoint


def _local(name: str | Path, path: Path) -> str:
    if Path(name).expanduser().exists():
        return "a folder" if path.is_dir() else "a file"
    return "a model that comes with griffin"


def _archives(path: Path) -> list[Path]:
    return [p for p in sorted(path.glob("*.pt")) if not _TRAINING.fullmatch(p.name)]


def _open_file(path: Path, config: GriffinConfig | Mapping[str, Any] | None) -> Checkpoint:
    if path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json"):
        return open_huggingface(path, config)
    if path.suffix in _PICKLES:
        open_file(path, CheckpointError).close()
        return open_deepmind_torch(path, config)
    raise CheckpointError(
        f"{path} is no known kind of checkpoint; expected a folder, or a file ending in"
        " .safetensors or .pt"
    )


def _open_archive(
    path: Path,
    archives: list[Path],
    trees: list[Path],
    config: GriffinConfig | Mapping[str, Any] | None,
) -> Checkpoint:
    """Open the one archive of a folder, and say of its config.json what a folder of safetensors
    says of its own."""
    if trees:
        checkpoint = open_deepmind_flax(trees[0], config, beside=path)
    else:
        checkpoint = _open_file(archives[0], config)
    beside = checkpoint.folder / "config.json"
    if config is None and is_there(beside):
        fields = read_object(beside, refuse=CheckpointError)
        checkpoint.notes += config_notes(fields, str(beside))
    return checkpoint


def _nothing(path: Path) -> str:
    if any(path.glob("pytorch_model*.bin")):
        return f"{path} holds pytorch_model.bin, expected safetensors (pickles run code)"
    found = listed(sorted(entry.name for entry in path.iterdir())) or "nothing"
    return (
        f"{path} holds no checkpoint: expected config.json with *.safetensors, a .pt archive or an"
        f" Orbax folder, found {found}"
    )
