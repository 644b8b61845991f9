"""Tokenizer folders, damaged or made up to do harm: opened, and texts turned into ids and back.

A case is a good folder in which a value of a JSON file, bytes of `tokenizer.model` or the steps of
`tokenizer.json` (normalizer, pre-tokenizer, added tokens) were changed, or a name made something
that is no file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from griffin.text import Chat, Tokenizer
from griffin.text.render_process import RenderProcess
from griffin.text.text_steps import PIECES
from tests.support.gemma_tokenizer import write_tokenizers
from tools.fuzz.files import _changed  # pyright: ignore[reportPrivateUsage]

ALLOWED = (ValueError,)

TEXTS = (
    *(
        "",
        "a b",
        "<eos> <bos><end_of_turn>",
        "def f():\n    return 1\n",
        "e\u0301\U0001f600 \ufdfa",
    ),
    *(
        "a" * 20_000,
        "a" * 3000 + "b",
        " " * 5000,
        "<0x41><0x0A>\u2581",
        "\ufdfa" * 3000,
        "0\t" * 3000,
    ),
)
NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_RENDERER = RenderProcess.shared()  # held, so that it is started once


@dataclass(frozen=True)
class Case:
    """Contents by name; None is a FIFO. `what` says what was changed."""

    contents: dict[str, bytes | None]
    what: str

    def __str__(self) -> str:
        return self.what


@cache
def good_folders() -> tuple[dict[str, bytes], ...]:
    """Return the folders that cases begin with."""
    with tempfile.TemporaryDirectory() as place:
        files = write_tokenizers(Path(place))
        folders = (files.json, files.chatml, files.model)
        found = [
            {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
            for folder in folders
        ]
    special = {"additional_special_tokens": ["<extra>"], "bos_token": {"content": "<bos>"}}
    found[0]["special_tokens_map.json"] = json.dumps(special).encode()
    return tuple(found)


def make(chance: random.Random) -> Case:
    """Return a folder with a change."""
    contents: dict[str, bytes | None] = dict(chance.choice(good_folders()))
    name = chance.choice(list(contents))
    text = contents[name] or b""
    if chance.random() < 0.02:
        contents[chance.choice(NAMES)] = None
        return Case(contents, "a FIFO")
    if name == "tokenizer.json" and chance.random() < 0.7:
        contents[name], what = _steps(chance, json.loads(text))
        return Case(contents, what)
    if name.endswith(".json"):
        contents[name], what = _changed(chance, text)
        return Case(contents, f"{name}: {what}")
    changed = bytearray(text)
    for _ in range(chance.choice((1, 1, 3, 20))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    contents[name] = bytes(changed[: chance.choice((None, chance.randrange(len(changed))))])
    return Case(contents, f"{name}: other bytes")


def attempt(case: Case) -> None:
    """Open the folder; turn texts into ids and back, and a conversation."""
    folder = Path(tempfile.mkdtemp(prefix="griffin-fuzz-"))
    try:
        for name, content in case.contents.items():
            if content is None:
                os.mkfifo(folder / name)
            else:
                (folder / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = Tokenizer.open(folder)
        typed = tokenizer.control_ids - {tokenizer.unk_id}
        for text in (*TEXTS, "".join(list(tokenizer.vocabulary.control)[:50])):
            ids = tokenizer.encode(text, bos=False)
            assert not typed & set(ids), "a typed text became a control token"
            tokenizer.decode(ids)
        Chat(tokenizer).ids([{"role": "user", "content": "<eos> a"}])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _steps(chance: random.Random, spec: dict[str, Any]) -> tuple[bytes, str]:
    what = chance.choice(("normalizer", "pre_tokenizer", "both", "added_tokens", "model"))
    if what in ("normalizer", "both"):
        spec["normalizer"] = _normalizer(chance, 3)
    if what in ("pre_tokenizer", "both"):
        spec["pre_tokenizer"] = _cut(chance, 3)
    if what == "added_tokens":
        entry = dict(chance.choice(spec["added_tokens"]))
        entry["id"] = chance.choice((600, 602, 5, 2**31, 10**9, -1, 10**400))
        entry["content"] = chance.choice(("", " ", "a", "\n", "x" * 10**6, "<eos>", "\ud800", "\0"))
        entry |= {
            key: chance.random() < 0.5 for key in ("special", "lstrip", "rstrip", "normalized")
        }
        spec["added_tokens"] += [entry] * chance.choice(
            (1, 2, 2 if len(entry["content"]) > 9 else 70_000)
        )
    if what == "model":
        key = chance.choice((*spec["model"], "cache_capacity", "type"))
        value = chance.choice((None, True, 0, 2**63, 0.5, "<unk>", "", [], {}, ["a"], {"a": 0}))
        spec["model"][key] = value
        return json.dumps(spec).encode(), f"model's {key}: {value!r}"
    shown = {key: spec[key] for key in ("normalizer", "pre_tokenizer")}
    return json.dumps(spec).encode(), f"{what}: {json.dumps(shown)[:400]}"


def _pattern(chance: random.Random) -> dict[str, str]:
    if chance.random() < 0.4:
        return {"String": chance.choice(("", " ", "a", "\u2581", "\n\n", "\0"))}
    known = (
        *(
            PIECES,
            r"\d",
            r"\d{1,3}",
            " ?\\p{L}+",
            "[ \\t]+|\\n",
            "",
            "x*",
            "(a+)+$",
            "(a|a)*b",
            "a*a*b",
        ),
        *(
            r"\s+(?!\S)",
            "(?<=a)b",
            r"(a)\1",
            "[",
            "(?i:a)",
            ".*.*.*=.*",
            "a{0,9}{0,9}{0,9}b",
            "^",
            "$",
        ),
        *(r"\X", r"\b", "a?" * 30 + "a" * 30, "[^a]*b", ".+", r"\p{Han}+", "(?<n>a|b\\g<n>c)"),
    )
    return {"Regex": chance.choice(known)}


def _normalizer(chance: random.Random, depth: int) -> Any:
    content = chance.choice(("", "\u2581", "a", "aa", "a" * 1000, " " * 40, "\0"))
    steps: tuple[Any, ...] = (
        *(
            {"type": kind}
            for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")
        ),
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": _pattern(chance), "content": content},
        {"type": "Replace", "pattern": {"String": "a"}, "content": content},
        {"type": "Prepend", "prepend": content},
        {"type": "Precompiled", "precompiled_charsmap": chance.choice(("", "AAAA", "////", 5))},
        {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "lowercase": True,
        },
        *({"type": "ByteLevel"}, {"type": "New"}, {"type": []}, {}, None, 5, "NFC"),
    )
    if depth and chance.random() < 0.4:
        inner = [_normalizer(chance, depth - 1) for _ in range(chance.randrange(5))]
        return {
            "type": "Sequence",
            "normalizers": chance.choice((inner, inner, None, inner[:1] * 9)),
        }
    return chance.choice(steps)


def _cut(chance: random.Random, depth: int) -> Any:
    ways = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous", "Other")
    split = {"type": "Split", "pattern": _pattern(chance), "behavior": chance.choice(ways)}
    steps: tuple[Any, ...] = (
        *({"type": kind} for kind in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")),
        *({"type": kind} for kind in ("UnicodeScripts", "Metaspace", "New", "Punctuation")),
        *(split | {"invert": chance.random() < 0.5} for _ in range(8)),
        *({"type": "FixedLength", "length": n} for n in (0, 1, 5, -1, 2**63)),
        {"type": "Digits", "individual_digits": True},
        {"type": "CharDelimiterSplit", "delimiter": chance.choice(("a", "", "ab", 5))},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True},
        *({"type": 5}, {}, None, [], "Split"),
    )
    if depth and chance.random() < 0.4:
        inner = [_cut(chance, depth - 1) for _ in range(chance.randrange(5))]
        return {"type": "Sequence", "pretokenizers": chance.choice((inner, inner, None))}
    return chance.choice(steps)
