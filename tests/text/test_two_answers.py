"""Files beside a tokenizer that say different things: which counts is transformers', and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import griffin
from griffin.checkpoints import CheckpointWarning
from griffin.text import Tokenizer, two_answers
from tests.support.gemma_tokenizer import Files, write_tokenizers
from tests.support.toy_folder import write_toy

A, B = "{{ messages[0].content }}", "{{ messages[0].role }}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_tokenizers(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture
def folder(files: Files, tmp_path: Path) -> Path:
    shutil.copytree(files.json.parent if files.json.is_file() else files.json, tmp_path / "t")
    return tmp_path / "t"


def notes(folder: Path) -> list[str]:
    return two_answers(Tokenizer.open(folder))


def edit(file: Path, **changes: Any) -> None:
    fields = json.loads(file.read_text()) if file.exists() else {}
    fields |= changes
    file.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))


def model_of(files: Files) -> Path:
    return files.model if files.model.is_file() else files.model / "tokenizer.model"


def test_both_tokenizers_of_one_vocabulary(files: Files, folder: Path) -> None:
    assert notes(folder) == []
    shutil.copy(model_of(files), folder / "tokenizer.model")
    assert notes(folder) == []
    # What was added behind the model's ids is no difference.
    spec = json.loads((folder / "tokenizer.json").read_text())
    last = max(entry["id"] for entry in spec["added_tokens"])
    last = max(last, *spec["model"]["vocab"].values())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": last + 1, "content": "<more>"})
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    assert notes(folder) == []


def test_both_tokenizers_of_two_vocabularies(files: Files, folder: Path) -> None:
    content = model_of(files).read_bytes()
    shutil.copy(model_of(files), folder / "tokenizer.model")
    spec = json.loads((folder / "tokenizer.json").read_text())
    vocab = spec["model"]["vocab"]
    piece, number = next((p, n) for p, n in vocab.items() if n > 300 and p.isalpha())
    vocab["zzzzz"] = vocab.pop(piece)
    spec["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (note,) = notes(folder)
    assert f"id {number} is {piece!r} there, 'zzzzz' here" in note and "tokenizer.model" in note
    for damaged in (b"", b"\x0a", content[:5], b"{}", bytes(100)):
        (folder / "tokenizer.model").write_bytes(damaged)
        assert "tokenizer.model" in notes(folder)[0]


@pytest.mark.parametrize(
    ("jinja", "config", "map", "old", "said"),
    [
        (None, A, None, None, None),
        (A, None, None, None, None),
        (A, A, A, A, None),
        (A, [{"name": "default", "template": A}, {"name": "rag", "template": B}], None, None, None),
        (A, B, None, None, "in chat_template.jinja; another, which is not read, in tokenizer_conf"),
        (A, [{"name": "default", "template": B}], None, None, "in chat_template.jinja; another"),
        (None, A, B, None, "in tokenizer_config.json; another, which is not read, in special_tok"),
        (A, None, None, B, "in chat_template.jinja; another, which is not read, in chat_template."),
        (None, None, None, B, "in no file that is read; another, which is not read, in chat_templ"),
    ],
)
def test_a_chat_template_in_two_places(
    folder: Path, jinja: str | None, config: Any, map: Any, old: Any, said: str | None
) -> None:
    edit(folder / "tokenizer_config.json", chat_template=config)
    for name, template in (("special_tokens_map.json", map), ("chat_template.json", old)):
        if template is not None:
            edit(folder / name, chat_template=template)
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    found = notes(folder)
    assert len(found) == (said is not None) and (said or "") in "".join(found)


@pytest.mark.thorough
def test_the_template_that_counts_is_transformers(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for jinja, config, old in (
        (A, B, None),
        (None, B, A),
        (A, None, B),
        (None, None, B),
        (None, [{"name": "default", "template": A}], B),
    ):
        for name in ("chat_template.jinja", "chat_template.json"):
            (folder / name).unlink(missing_ok=True)
        edit(folder / "tokenizer_config.json", chat_template=config)
        if old is not None:
            edit(folder / "chat_template.json", chat_template=old)
        if jinja is not None:
            (folder / "chat_template.jinja").write_text(jinja)
        theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder).chat_template
        theirs = theirs["default"] if isinstance(theirs, dict) else theirs
        assert Tokenizer.open(folder).chat_template == theirs, (jinja, config, old)


def test_names_in_two_places(folder: Path) -> None:
    edit(folder / "special_tokens_map.json", eos_token={"content": "<eos>"}, pad_token="<pad>")
    assert notes(folder) == []
    edit(folder / "special_tokens_map.json", eos_token="<end_of_turn>")
    (note,) = notes(folder)
    assert "eos_token is '<eos>' in tokenizer_config.json" in note and "'<end_of_turn>'" in note


def test_it_is_said_when_a_model_is_loaded(tmp_path: Path) -> None:
    folder = write_toy(tmp_path)
    (folder / "chat_template.jinja").write_text(A)
    edit(folder / "tokenizer_config.json", chat_template=B)
    with pytest.warns(CheckpointWarning, match="a chat template in chat_template.jinja"):
        griffin.load(folder, device="cpu")
