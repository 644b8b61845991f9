"""Repositories: what the Hub's client is asked for, and what its refusals become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError
from griffin.checkpoints.hub import is_repo_id
from griffin.loading import load, load_tokenizer
from tests.support.toy_checkpoints import HUGGINGFACE, same
from tests.support.toy_models import make_model

REPO = "google/recurrentgemma-2b"


def answer(status: int) -> Any:
    """Return what the errors keep of a response, whichever HTTP library the client uses."""
    return SimpleNamespace(
        status_code=status, headers={}, request=SimpleNamespace(headers={}, url="x")
    )


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> str:
    def snapshot_download(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.open(REPO, revision="v2")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    checkpoints.save_model(make_model(HUGGINGFACE), tmp_path)

    def snapshot_download(repo: str, **kwargs: Any) -> str:
        asked.update(kwargs, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert same(checkpoints.load_model(REPO, revision="abc"), make_model(HUGGINGFACE))
    patterns = asked.pop("allow_patterns")
    assert asked == {"repo": REPO, "revision": "abc"}
    assert "*.safetensors" in patterns and not any(
        p.endswith((".bin", ".pt", ".py", "*")) for p in patterns[:3]
    )


@pytest.mark.parametrize(
    "error",
    [
        errors.GatedRepoError("gated", response=answer(403)),
        errors.HfHubHTTPError("unauthorized", response=answer(401)),
        errors.HfHubHTTPError("forbidden", response=answer(403)),
    ],
)
def test_gated(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    text = refuse(monkeypatch, error)
    assert f"accept the Gemma terms of use at https://huggingface.co/{REPO}" in text
    assert "hf auth login" in text and "HF_TOKEN" in text


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.RepositoryNotFoundError("404", response=answer(404)),
            "there is no huggingface.co/google/",
        ),
        (errors.RevisionNotFoundError("404", response=answer(404)), "has no revision 'v2'"),
        (errors.HfHubHTTPError("broken\nlong text", response=answer(500)), "answered 500: broken"),
        (
            errors.LocalEntryNotFoundError("nothing"),
            "is not in the local cache and the Hub cannot be reached",
        ),
    ],
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    assert message in refuse(monkeypatch, error)


def test_a_connection_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    library_error = errors.HfHubHTTPError.__bases__[0]
    assert "broke off" in refuse(monkeypatch, library_error("peer closed connection"))


def test_offline_with_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        CheckpointError, match="is not in the local cache and HF_HUB_OFFLINE is set"
    ):
        checkpoints.open(REPO)


def test_offline_with_a_cached_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--google--recurrentgemma-2b"
    checkpoints.save_model(make_model(HUGGINGFACE), repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert same(checkpoints.load_model(REPO), make_model(HUGGINGFACE))


def test_repo_ids() -> None:
    assert is_repo_id(REPO)
    for path in ("recurrentgemma-2b", "a/b/c", "/tmp/x", "./x/y", "../x", "a/", "a b/c"):
        assert not is_repo_id(path)


@pytest.mark.parametrize("call", [checkpoints.open, load, load_tokenizer])
def test_a_revision_of_what_has_none_is_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nano is no repository .* comes with griffin"):
        call("nano", revision="v2")
    with pytest.raises(ValueError, match="but a folder, which has no revisions"):
        call(tmp_path, revision="v2")
