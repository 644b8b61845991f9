"""Small talk: pairs of a question and an answer from the English files of chatterbot-corpus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

# Of greetings and tastes. Its files on health and politics, its facts, which are dated, and its
# help with programs, which is often wrong, are left out.
FILES = ("greetings", "conversations", "emotion", "food", "humor", "literature", "psychology")
# Answers that claim what a program is not, or is not allowed to say.
_CLAIMS = re.compile(
    r"sentien|conscious|\bI (?:feel|was|am a|have a body|know everything)\b|sex|kill|stupid|hate",
    re.IGNORECASE,
)


def pairs(folder: Path, broken: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (what is said, what is answered) of conversations of two turns."""
    for name in FILES:
        path = next(folder.glob(f"*/data/english/{name}.yml"))
        for number, turns in enumerate(_conversations(path, broken)):
            if len(turns) < 2:
                broken.append(f"{name}.yml: conversation {number} has {len(turns)} turns")
                continue
            said, answer = turns[:2]
            if said and answer and not _CLAIMS.search(said + " " + answer):
                yield said, answer


def _conversations(path: Path, broken: list[str]) -> Iterator[list[str]]:
    """Yield the lists below `conversations:`: two levels of dashes, and lines that go on."""
    turns: list[str] = []
    begun = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("conversations:"):
            begun = True
        elif not begun or not line.strip():
            continue
        elif match := re.match(r"- - ?(.*)", line):
            if turns:
                yield [_scalar(turn, path, broken) for turn in turns]
            turns = [match[1]]
        elif match := re.match(r"  - ?(.*)", line):
            turns.append(match[1])
        elif turns:
            turns[-1] += " " + line.strip()
    if turns:
        yield [_scalar(turn, path, broken) for turn in turns]


def _scalar(written: str, path: Path, broken: list[str]) -> str:
    text = written.strip()
    if text.startswith("'") and text.endswith("'") and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        try:
            return json.loads(text)
        except ValueError:
            broken.append(f"{path.name}: {text[:40]}")
            return ""
    return "" if text.startswith(("|", ">", "&", "*", "[", "{")) else text
