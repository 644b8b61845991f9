"""`griffin models`, `pull` and `rm`."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
from huggingface_hub import constants

from griffin import checkpoints
from tests.support.toy_checkpoints import HUGGINGFACE
from tests.support.toy_models import make_model

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    path = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(path))
    return path


@pytest.fixture
def hub(cache, monkeypatch):
    """A Hub that has every repository; return what it was asked for."""
    asked = []

    def snapshot_download(repo, *, revision, allow_patterns):
        asked.append((repo, revision))
        home = cache / f"models--{repo.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(COMMIT)
        (home / "snapshots").mkdir()
        checkpoints.save_model(make_model(HUGGINGFACE), home / "snapshots" / COMMIT)
        return str(home / "snapshots" / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_cache_that_was_never_made_is_empty(run, cache):
    told = run("models")
    assert told.exit_code == 0 and "nano" in told.stdout and not cache.exists()


def test_fetched_listed_used_and_removed(run, hub):
    assert "recurrentgemma-2b-it" in run("models").stdout.splitlines()[-1]
    fetched = run("pull", "recurrentgemma-2b-it")
    assert hub == [("google/recurrentgemma-2b-it", None)]
    assert fetched.stdout.strip().endswith(COMMIT)
    shown = run("models").stdout
    assert "nano" in shown and "google/recurrentgemma-2b-it at 01234567" in shown
    (one,) = [
        x for x in map(json.loads, run("models", "--json").stdout.splitlines()) if x["revision"]
    ]
    assert one["path"] == fetched.stdout.strip() and one["missing"] == []
    kept = run("rm", "recurrentgemma-2b-it", stdin="n\n")
    assert kept.exit_code == 1 and "Aborted" in kept.stderr
    assert "freed" in run("rm", "recurrentgemma-2b-it", "--yes").stdout
    gone = run("rm", "recurrentgemma-2b-it", "--yes")
    assert gone.exit_code == 2 and "there are no models" in gone.stderr


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("pull", "nano"), "is here already"),
        (("pull", "nanoo"), "did you mean nano?"),
        (("rm", "nano", "--yes"), "was not downloaded"),
    ],
)
def test_what_was_never_downloaded(run, command, hint):
    told = run(*command)
    assert told.exit_code == 2 and hint in told.stderr
