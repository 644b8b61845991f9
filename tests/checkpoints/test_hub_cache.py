"""What lies in the Hub's cache, and taking it away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from griffin import checkpoints
from griffin.checkpoints.hub_cache import cached_models, remove_cached
from tests.support.toy_checkpoints import HUGGINGFACE
from tests.support.toy_models import make_model

REPO, COMMIT = "google/recurrentgemma-2b-it", "a" * 40
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a model into a cache laid out as the Hub's client does."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def put(repo: str = REPO, commit: str = COMMIT, ref: str = "main", **save: object) -> Path:
        made = tmp_path / commit
        checkpoints.save_model(make_model(HUGGINGFACE), made, **save)
        home = cache / f"models--{repo.replace('/', '--')}"
        folder = home / "snapshots" / commit
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / ref).write_text(commit)
        folder.mkdir(parents=True)
        (home / "blobs").mkdir(exist_ok=True)
        for file in made.iterdir():
            blob = home / "blobs" / f"{commit[0]}-{file.name}"
            file.rename(blob)
            (folder / file.name).symlink_to(blob)
        return folder

    return put


def test_without_a_cache_there_are_none(put: Put) -> None:
    assert cached_models() == []


def test_what_is_here_and_what_is_not_whole(put: Put) -> None:
    folder = put(max_shard_size=20_000)
    (found,) = cached_models()
    assert (found.repo, found.revision, found.refs) == (REPO, COMMIT, ("main",))
    assert found.folder == folder and found.format == "float32" and found.missing == ()
    assert found.nbytes == sum(file.stat().st_size for file in folder.iterdir())
    named = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    lost = sorted(set(named.values()))[:2]
    for name in lost:  # as a download that broke off leaves them
        (folder / name).resolve().rename(folder.parents[1] / "blobs" / f"{name}.incomplete")
        (folder / name).unlink()
    assert cached_models()[0].missing == tuple(lost)


def test_others_models_are_not_ours(put: Put) -> None:
    folder = put("someone/llama")
    config = folder / "config.json"
    content = json.loads(config.read_text()) | {"model_type": "llama"}
    config.resolve().write_text(json.dumps(content))
    assert cached_models() == []


def test_one_revision_and_a_whole_repository_go(put: Put) -> None:
    folders = [put(), put(commit="b" * 40, ref="v2"), put("someone/griffin", "c" * 40)]
    assert remove_cached(REPO, "v2") > 0
    assert [folder.exists() for folder in folders] == [True, False, True]
    assert remove_cached(REPO) > 0
    assert not folders[0].parents[1].exists() and folders[2].exists()
    with pytest.raises(checkpoints.CheckpointError, match="there are someone/griffin"):
        remove_cached(REPO)
