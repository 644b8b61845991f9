"""Tokenizer files that mean harm, or ask for what is not done: bounded, refused, or said."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from griffin.text import Tokenizer, text_steps
from griffin.text.special_tokens import read_special_tokens
from griffin.text.text_steps import MOST_GROWTH, PIECES, check_steps
from griffin.text.tokenizer_json import TokenizerWarning, open_tokenizer_json, read_spec
from griffin.train.data.bpe import open_bpe
from tools.fuzz.harness import chance
from tools.fuzz.tokenizers import ALLOWED, attempt, make


def changed(files: Any, folder: Path, **parts: Any) -> Path:
    spec = json.loads((files.json / "tokenizer.json").read_text())
    spec["model"].update(parts.pop("model", {}))
    spec.update(parts)
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return folder


def sequence(*steps: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def replace(content: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}


def split(**pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


_SPACES = replace("▁", String=" ")
_NORMALIZERS: list[tuple[Any, str]] = [
    (sequence(*[replace("a" * 1000)] * 4), "up to 1000000000000 bytes of one"),
    (sequence(_SPACES, sequence(sequence(replace("a" * 41)))), "makes up to 123 bytes"),
    (sequence({"type": "NFKC"}, {"type": "NFKD"}), "up to 144"),
    (replace("a" * 50, Regex="a"), "up to 51 bytes"),
    ({"type": "Prepend", "prepend": "a" * 5000}, "5000 more"),
    (replace("x", String=""), "has the pattern .*; expected a text"),
    (replace("x", Regex="(a+)+$"), "regular expression .* busy without end"),
    ({"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "a step 'Precompiled'; those that"),
    ({"type": "New"}, "a step 'New'; those that are run: BertNormalizer, "),
    ({"type": "Replace"}, "has None where a text belongs"),
    ({"type": "Prepend", "prepend": 5}, "has 5 where a text belongs"),
    ({"type": "Sequence"}, "normalizers must be a list, not None"),
    ({"type": ["NFC"]}, "must be an object with a type"),
    ("NFC", "must be an object with a type, not 'NFC'"),
    (5, "must be an object with a type, not 5"),
]
_CUTS: list[tuple[Any, str]] = [
    ({"type": "FixedLength", "length": 0}, "a step 'FixedLength'; those that are run: "),
    ({"type": "Sequence", "pretokenizers": [{"type": "FixedLength"}]}, "a step 'FixedLength'"),
    ({"type": "Sequence", "pretokenizers": 5}, "pretokenizers must be a list, not 5"),
    (split(String=""), "expected a text"),
    (split(Other="x"), "expected a text"),
    ({"type": "Split"}, "has the pattern None"),
    ([], "must be an object with a type"),
]


@pytest.mark.parametrize(
    ("part", "step", "message"),
    [
        *(("normalizer", step, message) for step, message in _NORMALIZERS),
        *(("pre_tokenizer", step, message) for step, message in _CUTS),
    ],
)
def test_steps_that_would_blow_up_panic_or_are_unknown_are_refused(
    files: Any, tmp_path: Path, part: str, step: Any, message: str
) -> None:
    folder = changed(files, tmp_path, **{part: step})
    for opened in (Tokenizer.open, lambda folder: open_bpe(folder / "tokenizer.json")):
        with pytest.raises(ValueError, match=message) as caught:
            opened(folder)
        assert str(folder / "tokenizer.json") in str(caught.value)


# Each could be tried in so many ways, on some text, that it would not be over in a lifetime, or
# grows faster than its text.
_HEAVY = (
    *(
        "(a+)+$",
        "(a|a)*b",
        "(a|aa)+$",
        "a*a*b",
        ".*.*=.*",
        "[^a]*b",
        r"\s+(?!\S)",
        "a+b",
        "(?<=a)b",
    ),
    *(
        "a?" * 30 + "a" * 30,
        "a{0,9}{0,9}",
        r"(a)\1",
        r"(?<n>a|b\g<n>c)",
        "a{2,}b",
        r"\d+\d+",
        "x*y?z",
    ),
    *(
        "(?i:a)",
        "a++",
        "a+?",
        "[a-z&&[^b]]+",
        "a|",
        "|a",
        "",
        "[",
        "a{100000}",
        "a" * 201,
        r"\R+",
        "^a",
    ),
)
_LIGHT = (
    *(
        PIECES,
        r"\d",
        r"\p{N}{1,3}",
        " ?\\p{L}+",
        "[ \\t]+|\\r?\\n",
        "x*",
        ".",
        r"\.",
        "[^\\s\\p{L}]+",
    ),
    *("[ .]?[\\p{L}\\p{M}_]+", "ab{2}c{2,}", "日本|한+", r"\P{Han}{2,3}", "'s|'t|'re", "[+-]?\\d+"),
)


def test_of_regular_expressions_those_are_run_that_no_text_holds_up() -> None:
    for pattern in _HEAVY:
        with pytest.raises(ValueError, match="regular expression"):
            check_steps({"pre_tokenizer": split(Regex=pattern)})
    for pattern in _LIGHT:
        check_steps({"pre_tokenizer": split(Regex=pattern)})


@pytest.mark.thorough
@pytest.mark.parametrize("pattern", _LIGHT)
def test_what_is_run_is_soon_over(pattern: str) -> None:
    cut = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    for piece in ("a", " ", "\n", "\r\n", "1", ".", "b", "日", "\u0301", "x", "+"):
        start = time.process_time()
        cut.pre_tokenize_str(piece * 50_000 + "!")
        assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"type": "NFKC"}, "\ufdfa" * 50 + "\u3300㌖"),
        ({"type": "NFKD"}, "\ufdfa" * 50 + "각ΰ"),
        ({"type": "NFD"}, "ΐΰᾂ각"),
        ({"type": "NFC"}, "\u0958\ufb2c\U0001d160"),
        ({"type": "Lowercase"}, "İẞΑ"),
        ({"type": "Nmt"}, "\u200b\u3000"),
        ({"type": "ByteLevel"}, "é日 \x00"),
        ({"type": "StripAccents"}, "éα\u0301"),
        ({"type": "Strip", "strip_left": True, "strip_right": True}, " a "),
        (
            {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": False,
                "lowercase": True,
            },
            "日İΐ",
        ),
        (sequence({"type": "NFKC"}, _SPACES), "\ufdfa \ufdfa"),
        (replace("xy", Regex="x*"), "aaa"),
        ({"type": "Prepend", "prepend": "▁▁"}, "a"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_no_text_grows_by_more_than_was_counted(step: Any, text: str) -> None:
    """Every character of Unicode's first three planes, and the texts that grow most."""
    check_steps({"normalizer": step})
    spec: dict[str, Any] = {"version": "1.0", "added_tokens": [], "pre_tokenizer": None}
    spec |= {"post_processor": None, "decoder": None, "normalizer": step}
    spec["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    normalizer = tokenizers.Tokenizer.from_str(json.dumps(spec)).normalizer
    assert normalizer is not None
    growth, added = text_steps._growth(step)  # pyright: ignore[reportPrivateUsage]
    points = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    for one in [text, *points]:
        grown = len(normalizer.normalize_str(one).encode())
        assert grown <= growth * len(one.encode()) + added, ascii(one)


@given(
    steps=st.lists(st.sampled_from(["", "a", "aa", "▁", "a" * 7, "é"]).map(replace), max_size=6),
    text=st.text(alphabet="a ▁é", max_size=20),
)
def test_growth_of_steps_in_a_row(steps: list[Any], text: str) -> None:
    try:
        check_steps({"normalizer": sequence(*steps)})
    except ValueError as error:
        assert "normalizer makes up to" in str(error)
    else:
        grown = text
        for step in steps:
            grown = grown.replace("a", step["content"])
        assert len(grown.encode()) <= MOST_GROWTH * len(text.encode())


@pytest.mark.parametrize(
    ("parts", "note"),
    [
        ({"truncation": {"max_length": 3}}, "its truncation is not done"),
        ({"padding": {"length": 9}}, "its padding is not done"),
        ({"model": {"dropout": 0.1}}, "dropout of 0.1 is for training"),
        (
            {
                "post_processor": {
                    "type": "BertProcessing",
                    "sep": ["<eos>", 1],
                    "cls": ["<bos>", 2],
                }
            },
            "its post_processor is not run: <bos> comes first, and nothing else",
        ),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "<eos>", "type_id": 0}},
                    ],
                }
            },
            "its post_processor is not run",
        ),
    ],
)
def test_what_is_asked_for_and_not_done_is_said(
    files: Any, tokenizer: Tokenizer, tmp_path: Path, parts: dict[str, Any], note: str
) -> None:
    with pytest.warns(TokenizerWarning, match=note) as said:
        opened = Tokenizer.open(changed(files, tmp_path, **parts))
    assert len(said) == 1
    text = "  def f(x): return x"
    assert opened.encode(text) == tokenizer.encode(text)


def test_nothing_is_said_of_files_that_are_done_as_they_ask(files: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer.open(files.json)
        Tokenizer.open(changed(files, tmp_path, post_processor=None))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"added_tokens": [{"id": 3, "content": "x" * (1 << 20)}] * 2},
            "2 added tokens of 2,097,152",
        ),
        (
            {"added_tokens": [{"id": n, "content": "x"} for n in range(70_000)]},
            "has 70,000 added tokens of 70,000 characters; at most 65,536 of 524,288",
        ),
        ({"added_tokens": [{"id": 3, "content": ""}]}, "needs an integer id and a content"),
        ({"added_tokens": {"a": 1}}, "added_tokens must be a list"),
        ({"added_tokens": [{"id": 10**9, "content": "x"}]}, "id of 'x' is 1000000000; allowed are"),
        ({"added_tokens": [{"id": 10**400, "content": "x"}]}, "is a whole number of 1329 bits"),
        ({"model": {"unk_token": []}}, r"unk_token must be a text, not \[\]"),
        ({"model": {"type": ["BPE"]}}, r"holds a \['BPE'\] model"),
    ],
)
def test_sizes_and_types(files: Any, tmp_path: Path, parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer.open(changed(files, tmp_path, **parts))


def test_as_many_merges_as_gemma_has_are_read_however_short_they_are(tmp_path: Path) -> None:
    spec = {"model": {"vocab": {"a": 0}, "merges": [["a", "a"]] * 580_604}}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(spec, separators=(",", ":")))
    assert len(read_spec(path)["model"]["merges"]) == 580_604


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"],
)
def test_what_is_no_file_is_refused_at_once(files: Any, tmp_path: Path, name: str) -> None:
    changed(files, tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path / name} is a FIFO; expected a file")
    ):
        Tokenizer.open(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"[" * 90_000)
    if name.endswith(".json"):
        with pytest.raises(ValueError, match="deep"):
            Tokenizer.open(tmp_path)
    os.truncate(tmp_path / name, 1 << 40)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / name} has more than ")):
        Tokenizer.open(tmp_path)


def test_a_panic_of_the_library_is_an_error_like_another(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        pass

    def panics(*_: Any, **__: Any) -> Any:
        raise PanicException("chunk size must be non-zero")

    class Library:
        encode = encode_batch_fast = panics

    changed(files, tmp_path, added_tokens=[])
    monkeypatch.setattr("tokenizers.Tokenizer.from_str", lambda _: Library())
    path = tmp_path / "tokenizer.json"
    _, encode, _ = open_tokenizer_json(path, read_special_tokens(tmp_path))
    for text in ("a", "a" * 5000):
        with pytest.raises(ValueError, match="panics: chunk size"):
            encode(text)
    monkeypatch.setattr("tokenizers.Tokenizer.from_str", panics)
    with pytest.raises(ValueError, match=r"refuses it .*panics: chunk size"):
        open_tokenizer_json(path, read_special_tokens(tmp_path))


@pytest.mark.thorough
def test_tokenizers_nobody_thought_of() -> None:
    """A few of what `python -m tools.fuzz tokenizers` tries."""
    for number in range(60):
        with suppress(*ALLOWED):
            attempt(make(chance("tokenizers", 0, number)))
