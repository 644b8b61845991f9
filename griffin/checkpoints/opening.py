"""Recognise what a path or a repository holds, and open it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.config_json import parse_config
from griffin.checkpoints.errors import CheckpointError, listed
from griffin.checkpoints.huggingface import open_huggingface
from griffin.checkpoints.model_names import meant, resolve
from griffin.model import GriffinConfig

_PICKLES = {".pt", ".pth", ".bin", ".ckpt"}


def open_checkpoint(
    path_or_repo: str | Path,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> Checkpoint:
    """Open weights of any known layout without reading them.

    path_or_repo: a Hugging Face folder or repository ("google/recurrentgemma-2b", or that without
                  its owner), a safetensors file, DeepMind's torch archive (.pt) or Flax archive (an
                  Orbax folder), the folder around one, or "nano", the bundled model.
    config:       what the files do not say, as GriffinConfig fields, a whole GriffinConfig or the
                  fields of a config.json. DeepMind's archives carry no config: the released shapes
                  are known, any other needs attention_window_size, logits_soft_cap and
                  scale_embeddings.
    revision:     branch, tag or commit of a repository.
    Raises CheckpointError (a ValueError) that names file, tensor, what was expected and what was
    found.
    """
    if isinstance(config, Mapping) and "model_type" in config:
        config = parse_config(config, "config")[0]
    path_or_repo = resolve(path_or_repo)
    path = Path(path_or_repo).expanduser()
    if not path.exists():
        from griffin.checkpoints.hub import download, is_repo_id

        if isinstance(path_or_repo, Path) or not is_repo_id(path_or_repo):
            raise CheckpointError(
                f"{path_or_repo} does not exist; expected a folder, an archive, or a repository"
                f" such as google/recurrentgemma-2b{meant(str(path_or_repo))}"
            )
        path = download(path_or_repo, revision)
    if path.is_file():
        return _open_file(path, config)
    if any(path.glob("*.safetensors")) or (path / "model.safetensors.index.json").is_file():
        return open_huggingface(path, config)
    return _open_archive_folder(path, config)


def _open_file(path: Path, config: GriffinConfig | Mapping[str, Any] | None) -> Checkpoint:
    if path.suffix == ".safetensors":
        return open_huggingface(path, config)
    if path.suffix in _PICKLES:
        from griffin.checkpoints.deepmind_torch import open_deepmind_torch

        return open_deepmind_torch(path, config)
    raise CheckpointError(
        f"{path} is no known kind of checkpoint; expected a folder, or a file ending in"
        " .safetensors or .pt"
    )


def _open_archive_folder(
    path: Path, config: GriffinConfig | Mapping[str, Any] | None
) -> Checkpoint:
    from griffin.checkpoints.deepmind_flax import find_orbax, open_deepmind_flax
    from griffin.checkpoints.deepmind_torch import open_deepmind_torch

    archives = sorted(path.glob("*.pt"))
    trees = find_orbax(path)
    if len(archives) + len(trees) > 1:
        raise CheckpointError(
            f"{path} holds several checkpoints"
            f" ({listed(str(p.name) for p in [*archives, *trees])}); name one"
        )
    if trees:
        return open_deepmind_flax(trees[0], config, beside=path)
    if archives:
        return open_deepmind_torch(archives[0], config)
    found = listed(sorted(entry.name for entry in path.iterdir())) or "nothing"
    if any(path.glob("pytorch_model*.bin")):
        raise CheckpointError(
            f"{path} holds pytorch_model.bin, expected safetensors (pickles run code)"
        )
    raise CheckpointError(
        f"{path} holds no checkpoint: expected config.json with *.safetensors, a .pt archive or an"
        f" Orbax folder, found {found}"
    )
