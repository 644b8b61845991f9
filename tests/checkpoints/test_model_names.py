"""One resolver for all names of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from griffin import checkpoints
from griffin.checkpoints import model_names
from griffin.checkpoints.model_names import resolve


def test_a_name_gives_way_to_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_names, "_BUNDLED", tmp_path / "data")
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data" / "tiny" / "config.json").write_text("{}")
    assert resolve("no_such_model") == "no_such_model"
    assert resolve("tiny") == tmp_path / "data" / "tiny"
    assert resolve("recurrentgemma-2b-it") == "google/recurrentgemma-2b-it"
    for name in ("tiny", "recurrentgemma-2b-it"):
        (tmp_path / name).mkdir()
        assert resolve(name) == name
    assert resolve(Path("tiny")) == Path("tiny")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nanoo", "did you mean nano?"),
        ("recurentgemma-2b-it", "did you mean recurrentgemma-2b-it?"),
        ("RecurrentGemma-9B", "did you mean recurrentgemma-9b?"),
    ],
)
def test_a_name_that_is_nearly_one(name: str, meant: str) -> None:
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.open(name)
    assert meant in str(caught.value)
