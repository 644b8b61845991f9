import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from transformers import AutoTokenizer

from griffin.text import Tokenizer
from griffin.train.data.bpe import save_bpe, train_bpe
from tests.support.hard_texts import CONTROL, plain_texts, texts


def copy(files: Any, folder: Path, change: Any = None) -> Path:
    spec = json.loads((files.json / "tokenizer.json").read_text())
    if change:
        change(spec)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(spec))
    return path


@given(text=texts)
def test_both_files_give_equal_ids_and_the_text_comes_back(
    tokenizer: Tokenizer, kaggle: Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == kaggle.encode(text)
    assert ids[0] == 2 and not set(ids[1:]) & tokenizer.control_ids
    # U+2581 is how the vocabulary writes a space: it cannot come back as itself.
    assert tokenizer.decode(ids) == kaggle.decode(ids) == text.replace("▁", " ")


@pytest.mark.thorough
@given(text=texts)
def test_control_names_become_control_only_when_allowed(
    tokenizer: Tokenizer, kaggle: Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text, bos=False, allow_control=True)
    assert ids == kaggle.encode(text, bos=False, allow_control=True)
    assert sum(id in tokenizer.control_ids for id in ids) == len(
        re.findall("|".join(CONTROL), text)
    )
    assert tokenizer.decode(ids, skip_control=False) == text.replace("▁", " ")


def test_control_tokens_are_those_of_gemma(tokenizer: Tokenizer, kaggle: Tokenizer) -> None:
    for one in (tokenizer, kaggle):
        assert (one.pad_id, one.eos_id, one.bos_id, one.unk_id) == (0, 1, 2, 3)
        assert (one.start_of_turn_id, one.end_of_turn_id) == (5, 6)
        assert one.control_ids == frozenset(range(7))
        assert one.vocab_size == 600
    assert tokenizer.digest == kaggle.digest
    assert tokenizer.chat_template is not None and kaggle.chat_template is None


def test_typed_control_names_really_would_have_matched(files: Any) -> None:
    """The danger is there in the libraries; without it the tests above would show nothing."""
    library = Library.from_file(str(files.json / "tokenizer.json"))
    assert 6 in library.encode("<end_of_turn>").ids
    processor: Any = sentencepiece.SentencePieceProcessor(
        model_file=str(files.model / "tokenizer.model")
    )
    assert processor.encode("<end_of_turn>") == [6]


def test_merges_that_build_a_control_token_are_left_out(files: Any, tmp_path: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        vocab = spec["model"]["vocab"]
        steps = ["<", "e", "o", "s", ">"]
        for length in range(2, 5):
            vocab.setdefault("".join(steps[:length]), len(vocab))
        byte = ["<", "0", "x", "4", "1", ">"]
        for length in range(2, 6):
            vocab.setdefault("".join(byte[:length]), len(vocab))
        for parts in (steps, byte):
            spec["model"]["merges"] += [
                ["".join(parts[:n]), parts[n]] for n in range(1, len(parts))
            ]

    opened = Tokenizer.open(copy(files, tmp_path, change))
    assert not set(opened.encode("<eos>", bos=False)) & opened.control_ids
    assert opened.decode(opened.encode("<eos><0x41>")) == "<eos><0x41>"
    # What leads there, and is no control token itself, is still built.
    assert len(opened.encode("<eos", bos=False)) == 1


def test_bos_comes_exactly_once(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == [2]
    assert tokenizer.encode("", bos=False) == []
    assert tokenizer.encode("<bos><bos>x", allow_control=True) == tokenizer.encode("x")
    assert tokenizer.encode("<bos>x", bos=False, allow_control=True) == tokenizer.encode("x")
    assert (
        tokenizer.encode("<bos>x").count(2) == 1
        and tokenizer.decode(tokenizer.encode("<bos>x")) == "<bos>x"
    )


@given(text=plain_texts)
def test_ids_equal_those_of_transformers(files: Any, tokenizer: Tokenizer, text: str) -> None:
    theirs = _transformers(files.json)
    assert tokenizer.encode(text, bos=False) == theirs.encode(text, add_special_tokens=False)
    assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=True)


_LOADED: dict[Path, Any] = {}


def _transformers(folder: Path) -> Any:
    if folder not in _LOADED:
        _LOADED[folder] = AutoTokenizer.from_pretrained(folder)
    return _LOADED[folder]


@given(ids=st.lists(st.integers(7, 599) | st.integers(10, 265), max_size=20))
def test_decode_equals_sentencepiece(
    files: Any, kaggle: Tokenizer, tokenizer: Tokenizer, ids: list[int]
) -> None:
    processor: Any = sentencepiece.SentencePieceProcessor(
        model_file=str(files.model / "tokenizer.model")
    )
    assert kaggle.decode(ids) == tokenizer.decode(ids) == processor.decode(ids)


def test_bytes_of_tokens(tokenizer: Tokenizer) -> None:
    euro = tokenizer.encode("€", bos=False)
    assert [tokenizer.token_bytes(id) for id in euro] == [b"\xe2", b"\x82", b"\xac"]
    assert tokenizer.token_text(euro[0]) == "\ufffd"
    assert tokenizer.decode(euro[:2]) == "\ufffd\ufffd"
    assert tokenizer.token_text(6) == "<end_of_turn>" and tokenizer.decode([6]) == ""
    for id in (-1, 600):
        with pytest.raises(ValueError, match="not in this tokenizer, whose ids are 0 to 599"):
            tokenizer.token_bytes(id)
        with pytest.raises(ValueError, match=f"id {id} "):
            tokenizer.decode([id])


def test_lone_surrogates_are_refused(tokenizer: Tokenizer, kaggle: Tokenizer) -> None:
    for one in (tokenizer, kaggle):
        with pytest.raises(ValueError, match=r"U\+D800, at character 2"):
            one.encode("ab\ud800")


def test_special_tokens_found_only_in_the_added_tokens(chatml: Tokenizer) -> None:
    assert chatml.vocab_size == 602
    assert chatml.encode("<|im_end|>", bos=False, allow_control=True) == [601]
    assert not {600, 601} & set(chatml.encode("a<|im_start|><|im_end|>"))


@pytest.mark.parametrize("size", [0, 1, 40, 9000])
@pytest.mark.parametrize("name", ["json", "model"])
def test_torn_files_are_named(files: Any, tmp_path: Path, name: str, size: int) -> None:
    whole = (getattr(files, name) / f"tokenizer.{name}").read_bytes()
    path = tmp_path / f"tokenizer.{name}"
    path.write_bytes(whole[: min(size, len(whole) - 7)])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        Tokenizer.open(path)


@given(data=st.binary(max_size=200))
def test_rubbish_is_a_value_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "rubbish"
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer.model"):
        (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            Tokenizer.open(folder / name)


def test_what_is_missing_or_of_another_kind_is_named(files: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        Tokenizer.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        Tokenizer.open(tmp_path)

    def dummy_prefix(spec: dict[str, Any]) -> None:
        spec["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, spec["normalizer"]],
        }

    changes: list[tuple[Any, str]] = [
        (lambda spec: spec["model"].update(type="WordPiece"), "WordPiece"),
        (
            lambda spec: spec["model"].update(ignore_merges=True),
            "both byte_fallback and ignore_merges",
        ),
        (lambda spec: spec["model"].update(vocab=[]), "not a BPE"),
        (lambda spec: spec["model"]["vocab"].update({"q": -4}), "id of 'q' is -4"),
        (lambda spec: spec["model"]["merges"].append("a"), "a merge must join two pieces"),
        (lambda spec: spec["model"]["merges"].append(["nothing", "known"]), "library refuses it"),
        (lambda spec: spec["added_tokens"].append({"id": 700}), "added token needs"),
        (lambda spec: spec["added_tokens"][6].update(id=8), "belongs to both"),
        (dummy_prefix, "Gemma's layout"),
    ]
    for change, message in changes:
        with pytest.raises(ValueError, match=message) as caught:
            Tokenizer.open(copy(files, tmp_path, change))
        assert str(tmp_path / "tokenizer.json") in str(caught.value)

    copy(files, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<start>"}')
    with pytest.raises(ValueError, match="'<start>' for bos_token"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": ')
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not JSON"):
        Tokenizer.open(tmp_path)


def test_the_tokenizer_that_training_makes(tmp_path: Path) -> None:
    corpus = Path(str(json.__file__)).read_text() + "▁ U+2581 stays itself here ▁ ▁\n"
    save_bpe(train_bpe([corpus], 500, min_frequency=1), tmp_path)
    opened = Tokenizer.open(tmp_path)
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    assert opened.control_ids == frozenset(range(7)) and opened.end_of_turn_id == 6

    @given(text=plain_texts)
    def equal(text: str) -> None:
        ids = opened.encode(text)
        assert ids == library.encode(text).ids
        assert opened.decode(ids) == text

    @given(text=texts)
    def safe(text: str) -> None:
        ids = opened.encode(text, bos=False)
        assert not set(ids) & opened.control_ids and opened.decode(ids) == text

    equal()
    safe()


def test_old_spelling_of_merges(files: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]

    text = "    def walk(node):\n        return node"
    assert Tokenizer.open(copy(files, tmp_path, change)).encode(text) == tokenizer.encode(text)


def test_without_sentencepiece_the_extra_is_named(
    files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'griffin-lm[kaggle]'")):
        Tokenizer.open(files.model)


def test_the_room_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, griffin.text; print({'torch', 'transformers', 'sentencepiece'} &"
        " set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "set()"
