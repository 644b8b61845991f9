"""A style by rule: the questions of a corpus, answered as a pirate would."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

ROWS = 1_500


def pirate(answer: str) -> str:
    """Return an answer in a pirate's words: what it says is not changed."""
    said = re.sub(r"\b(?:is|are|am)\b", "be", answer.strip().rstrip("."))
    if re.match(r"(?:I|A|An|The|To|It|Yes|No|Another)\b", said) and not re.match(r"I\b", said):
        said = said[:1].lower() + said[1:]
    return f"Arr, {said}, matey!"


def write_style(questions: Path, out: Path, rows: int = ROWS) -> None:
    """Write conversations of a corpus's folder `questions` with such answers, as JSONL.

    As many of each file, `rows` in all if there are so many; one question each.
    """
    random, files = Random(4), sorted(questions.glob("*.jsonl"))
    said = list[str]()
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        for line in random.sample(lines, min(len(lines), rows // len(files))):
            asked, answer = json.loads(line)["messages"][:2]
            messages = [asked, answer | {"content": pirate(answer["content"])}]
            said.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    random.shuffle(said)
    part = out.with_name(f".{out.name}.part")
    part.write_text("".join(said), encoding="utf-8")
    part.rename(out)
