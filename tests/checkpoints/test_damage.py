"""Files that are wrong, truncated or hostile: one line that names file and tensor, and nothing
executed."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError
from griffin.checkpoints.safetensors_files import read_header
from tests.support.toy_checkpoints import DEEPMIND, HUGGINGFACE, UNTOLD, edit_tensors
from tests.support.toy_models import make_model

NORM = "model.final_norm.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoints.save_model(make_model(HUGGINGFACE), tmp_path / "m")
    return tmp_path / "m"


def refusal(path: Path, config: Any = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.open(path, config=config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_surplus_and_misshapen(folder: Path) -> None:
    file = str(folder / "model.safetensors")
    edit_tensors(folder, model__final_norm__weight=torch.zeros(49))
    assert refusal(folder) == f"{file}: {NORM} has shape [49], expected [48]"
    edit_tensors(folder, model__final_norm__weight=torch.zeros(48, dtype=torch.int8))
    assert f"{file}: {NORM} has dtype I8" in refusal(folder)
    edit_tensors(folder, model__final_norm__weight=None, model__extra=torch.zeros(3))
    text = refusal(folder)
    assert file in text and f"lacks {NORM}" in text and "holds model.extra" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(folder: Path, tmp_path: Path, value: float) -> None:
    weight = torch.zeros(48)
    weight[5] = value
    edit_tensors(folder, model__final_norm__weight=weight)
    expected = f"{NORM} holds 1 values that are NaN or infinite, of 48"
    with pytest.raises(CheckpointError, match=expected):
        checkpoints.load_model(folder, check=True)
    with pytest.raises(CheckpointError, match=expected):
        checkpoints.convert(folder, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    checkpoints.load_model(folder)  # lazily: nothing is read, nothing is judged


@pytest.mark.parametrize("keep", [0, 5, 100, -1, -1000])
def test_truncated(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    text = refusal(folder)
    assert str(file) in text and "truncated" in text


def test_longer_than_its_tensors(folder: Path) -> None:
    file = folder / "model.safetensors"
    with file.open("ab") as stream:
        stream.write(b"more")
    assert "its tensors end at byte" in refusal(folder)


def test_index(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    good = {name: "model.safetensors" for name in checkpoints.open(folder).names()}
    for weight_map, message in (
        ({**good, "x": "model.safetensors"}, "lacks x, which"),
        ({NORM: "model.safetensors"}, "does not place in it"),
        ({**good, NORM: "gone.safetensors"}, "not there: gone.safetensors"),
        ({**good, NORM: "../model.safetensors"}, "a file name in the same folder"),
        ({}, "at least one tensor"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert message in refusal(folder)
    index.write_text("{")
    assert "is not an index" in refusal(folder)


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"0" * 4,
            "expected 8 for F32 [2]",
        ),
        (
            header(a={"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}) + b"0" * 8,
            "starts at byte",
        ),
        (
            header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}) + b"0" * 4,
            "lacks dtype, shape",
        ),
        (
            header(a={"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}) + b"0" * 4,
            "lacks dtype, shape",
        ),
        (header(a=[1]), "lacks dtype, shape"),
        (struct.pack("<Q", 2) + b"[]", "must be a JSON object"),
        (struct.pack("<Q", 2) + b"{x", "not JSON"),
        (struct.pack("<Q", 1 << 60), "claims a header of"),
    ],
)
def test_headers(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path / "x.safetensors")
    assert message in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I8"]) | json_values,
        "shape": json_values,
        "data_offsets": json_values,
    }
)


@pytest.mark.thorough
@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text(max_size=4), entries | json_values, max_size=3) | json_values,
    st.binary(max_size=9),
)
def test_any_header_is_read_or_refused(tmp_path_factory: Any, fields: Any, rest: bytes) -> None:
    text = json.dumps(fields).encode()
    file = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + rest)
    try:
        found = read_header(file)
    except CheckpointError:
        return
    assert sum(entry.size for entry in found.values()) == len(rest)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, as_zip: bool) -> None:
    mark = tmp_path / "was-run"
    torch.save({"w": Hostile(mark)}, tmp_path / "x.pt", _use_new_zipfile_serialization=as_zip)
    text = refusal(tmp_path / "x.pt")
    assert "refused and nothing in it was run" in text and "mkdir" in text
    assert not mark.exists()
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    refusal(tmp_path / "y.pt")
    assert not mark.exists()


def test_archives_that_are_no_dictionary_of_dense_tensors(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    for content, message in (
        ([torch.zeros(1)], "holds list"),
        ({"a": 3}, "'a' is a int"),
        ({"a": {"b": torch.zeros(1)}}, "'a' is a dict"),
        ({"a": torch.eye(3).to_sparse()}, "expected a dense tensor"),
        ({"a": torch.zeros(1)}, "lacks embedder.input_embedding"),
        ({"model.layers.0.x": torch.zeros(1)}, "Hugging Face names in a pickle"),
    ):
        torch.save(content, file)
        text = refusal(file)
        assert str(file) in text and message in text


@pytest.mark.parametrize("keep", [0, 10, 4000, -1])
def test_truncated_archive(tmp_path: Path, keep: int) -> None:
    checkpoints.save_model(make_model(DEEPMIND), tmp_path / "m")
    file = tmp_path / "x.pt"
    checkpoints.convert(tmp_path / "m", file, "deepmind-torch")
    file.write_bytes(file.read_bytes()[:keep])
    text = refusal(file, UNTOLD)
    assert str(file) in text and "truncated" in text


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    assert "holds no checkpoint" in refusal(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "pytorch_model.bin" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "x.gguf").write_bytes(b"")
    assert "no known kind" in refusal(tmp_path / "x.gguf")
