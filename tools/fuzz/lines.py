"""Files of rows, right and wrong, prepared for training with and without --skip-bad.

A case is a file of JSONL (some packed): good rows of every shape, of which some were changed: other
values, other keys, bytes, cuts. Without --skip-bad it is taken or refused in one line that names
the file; with it every line is accounted for: it is a document (or several), left out by a reason,
or listed as bad. What a document counts is what its row says.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import griffin
from griffin.foreign import parse_json
from griffin.text import Tokenizer
from griffin.train.data.document import understand
from griffin.train.data.encode import Encoder
from griffin.train.data.example import learned_words
from griffin.train.data.source import DataSource, blocks
from griffin.train.data.survey import survey
from griffin.train.recipe import SourceRecipe

ALLOWED = ()
NANO = Path(griffin.__file__).parent / "data" / "nano"
_MOST = 2_000  # bytes of a document

_TEXTS = (
    *("", " ", "a", "owl\r\nhen", "\0", "<eos>", "<end_of_turn>\n<start_of_turn>model\n", "\ud800"),
    *("é" * 50, "\U0001f989", "x" * 5000, "\ufeff", "{{ bos_token }}", "▁", "<0x41>", "\u2028"),
)
_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1e300, 2**70, "", "a", [], {}, [None], [[]], {"a": 1}, "length"),
    *("user", "assistant", "system", "tool", "model", "developer", ["user"], "USER", " user"),
)
_KEYS = ("text", "messages", "prompt", "completion", "chosen", "rejected", "role", "content",
         "finish_reason", "name", "tool_calls", "id", "weight", "text ", "Text")  # fmt: skip
_RAW = (
    *(b"", b"\n", b"\r\n", b" \t\n", b"\0\0\0\n", b"\xff\xfe{}\n", b"\xef\xbb\xbf{}\n", b"null\n"),
    *(b"[" * 70 + b"]" * 70 + b"\n", b'{"text": "a", "text": "b"}\n', b'{"text": NaN}\n', b"{}\n"),
    *(b'{"text": "a"} {"text": "b"}\n', b'{"text": "\\ud800"}\n', b'"text"\n', b"{'text': 1}\n"),
)


@dataclass(frozen=True)
class Lines:
    """A file; changes says what was done."""

    content: bytes
    name: str
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.content[:2000]!r}; {'; '.join(self.changes)}"


@cache
def _encoder() -> Encoder:
    return Encoder(Tokenizer.open(NANO))


def make(chance: random.Random) -> Lines:
    """Return one to six lines, of which some are changed."""
    lines, changes = list[bytes](), list[str]()
    for _ in range(chance.randint(1, 6)):
        if chance.random() < 0.15:
            lines.append(chance.choice(_RAW))
            continue
        row = _row(chance)
        while chance.random() < 0.4:
            changes.append(_change(chance, row))
        lines.append(json.dumps(row, ensure_ascii=chance.random() < 0.8).encode(
            errors="surrogatepass") + b"\n")  # fmt: skip
    content = b"".join(lines)
    if chance.random() < 0.2:
        content, what = _bytes(chance, content)
        changes.append(what)
    name = "rows.jsonl"
    if chance.random() < 0.1:
        name, content = "rows.jsonl.gz", gzip.compress(content, mtime=0)
        if chance.random() < 0.5:
            content, what = _bytes(chance, content)
            changes.append(f"packed: {what}")
    return Lines(content, name, tuple(changes))


def attempt(case: Lines) -> None:
    """Prepare the file; AssertionError where something is trained on unnoticed, or lost so."""
    folder = Path(tempfile.mkdtemp(prefix="griffin-fuzz-"))
    try:
        (folder / case.name).write_bytes(case.content)
        source = DataSource(SourceRecipe(name="x", path=case.name), folder)
        rows = _account(source)
        bad = sum(kind == "bad" for kind in rows)
        for skip_bad in (False, True):
            place = folder / str(skip_bad)
            try:
                seen = survey([source], 0.1, _MOST, place, skip_bad=skip_bad)
            except ValueError as error:
                words = str(error)
                assert "\n" not in words and len(words) < 1000, words
                assert case.name in words or "documents in x" in words, words
                assert bad or "refused" in rows or rows.count("document") < 2, words
                continue
            assert skip_bad or not bad, "a bad line was passed over"
            assert "refused" not in rows, "a row for tuning was taken"
            assert seen.bad == bad, f"{seen.bad} bad, not {bad}"
            documents = sum(len(list(seen.documents([source], held))) for held in (False, True))
            assert documents == int(seen.blocks[:, 1].sum())
        _encode(source)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account(source: DataSource) -> list[str]:
    """Return what became of each record: there is one outcome each."""
    kinds = list[str]()
    for block in blocks([source], _MOST):
        for record in block.records:
            found = understand(type(block)(0, [record], (), 0), _MOST)
            outcomes = ["bad"] * len(found.bad) + ["left"] * found.left.total()
            outcomes += ["refused"] if found.refused else []
            outcomes += ["document"] if found.documents else []
            assert len(outcomes) == 1, f"{record.name}: {outcomes}"
            if found.documents and record.kind == "line":
                assert isinstance(record.content, bytes)
                parse_json(record.content, record.name, finite=True)  # strictly JSON
            kinds += outcomes * max(len(found.documents), 1)
    return kinds


def _encode(source: DataSource) -> None:
    """Encode what there is: what is counted is what the row says; control tokens stay text."""
    tokenizer = _encoder().tokenizer
    for block in blocks([source], _MOST):
        for document in understand(block, _MOST).documents:
            encoded = _encoder().encode(document.example)
            assert encoded.ids[0] == tokenizer.bos_id and not encoded.counted[0]
            assert encoded.counted.any(), f"{document.name} has no target"
            said = tokenizer.decode(encoded.ids[encoded.counted].tolist())
            assert said == learned_words(document.example), (said, document)


def _row(chance: random.Random) -> dict[str, Any]:
    def text() -> str:
        return chance.choice(_TEXTS) if chance.random() < 0.3 else f"owl {chance.random()}"

    def talk(turns: int, first: str = "user") -> list[dict[str, Any]]:
        roles = ("user", "assistant") if first == "user" else ("assistant", "user")
        begun = [{"role": "system", "content": text()}] if chance.random() < 0.2 else []
        return begun * (first == "user") + [
            {"role": roles[turn % 2], "content": text()} for turn in range(turns)
        ]

    return chance.choice((
        lambda: {"text": text()},
        lambda: {"messages": talk(chance.randint(1, 6))},
        lambda: {"prompt": text(), "completion": text()},
        lambda: {"prompt": talk(chance.choice((1, 3))), "completion": talk(1, "assistant")},
        lambda: {"messages": talk(2), "finish_reason": chance.choice(("stop", "length"))},
        lambda: {"prompt": text()} if chance.random() < 0.1 else {"text": text()},
    ))()  # fmt: skip


def _change(chance: random.Random, row: dict[str, Any]) -> str:
    places: list[tuple[Any, Any]] = [(row, key) for key in row]
    for value in list(row.values()):
        for message in value if isinstance(value, list) else ():
            if isinstance(message, dict):
                places += [(message, key) for key in message]
    holder, key = chance.choice(places) if places else (row, "text")
    value = chance.choice((*_ODD, *_TEXTS))
    action = chance.choice(("replace", "drop", "add", "repeat"))
    if action == "drop":
        holder.pop(key, None)
    elif action == "add":
        holder[chance.choice(_KEYS)] = value
    elif action == "repeat" and isinstance(holder.get(key), list):
        holder[key] = [*holder[key], *holder[key]]
    else:
        holder[key] = value
    return f"{action} {key!r}: {str(value)[:20]!a}"


def _bytes(chance: random.Random, content: bytes) -> tuple[bytes, str]:
    place = chance.randrange(len(content) + 1)
    what = chance.choice(("cut", "other bytes", "inserted", "UTF-16", "a mark"))
    changed = {
        "cut": content[:place],
        "other bytes": content[:place] + chance.randbytes(3) + content[place + 3 :],
        "inserted": content[:place] + chance.randbytes(2) + content[place:],
        "UTF-16": content.decode("latin-1").encode("utf-16"),
        "a mark": b"\xef\xbb\xbf" + content,
    }
    return changed[what], f"{what} at byte {place}"
