"""Examinations: what a model answers to questions that it has not read, graded by program."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from griffin.llm import LLM
from mini.reward import right

UNKNOWN = "I don't know"
GRADES = "grades.json"
_LONGEST = 64  # tokens of an answer
_AT_ONCE = 50  # questions that are answered together


@dataclass(frozen=True)
class Grade:
    """How an examination went.

    right: share of right answers, error: its standard error. commonest: share that is right for
    the answer that is right most often. unknown: share of answers that say "I don't know".
    """

    exam: str
    questions: int
    right: float
    error: float
    commonest: float
    unknown: float


def examine(
    llm: LLM, exams: Path, out: Path | None, say: Callable[[Grade], None], *, most: int = 500
) -> list[Grade]:
    """Let a model answer the examinations of a corpus by its likeliest tokens, and grade them.

    exams: the folder of *.jsonl, rows of `prompt` (messages) and `answer`. most: questions of
           each. out: where questions and answers are written, one file an examination, and at the
           end grades.json.
    say:   is told each grade. Raises FileNotFoundError if there are no examinations.
    """
    files = sorted(exams.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{exams} has no examinations: python -m mini sources writes them")
    grades = []
    for file in files:
        with file.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in islice(lines, most)]
        answered = [
            row | {"given": text, "right": right(text, row["answer"])}
            for row, text in zip(rows, _answers(llm, rows), strict=True)
        ]
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            kept = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answered)
            (out / file.name).write_text(kept, encoding="utf-8")
        grades.append(_grade(file.stem, answered))
        say(grades[-1])
    if out is not None:
        told = {"model": llm.name, "grades": [asdict(grade) for grade in grades]}
        (out / GRADES).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return grades


def tell(grade: Grade) -> str:
    """Return a grade in a line."""
    return (
        f"{grade.exam:12} {grade.right:6.1%} ± {grade.error:.1%} of {grade.questions}, commonest"
        f" answer {grade.commonest:.1%}; does not know {grade.unknown:.1%}"
    )


def _answers(llm: LLM, rows: list[dict[str, Any]]) -> list[str]:
    texts = [""] * len(rows)
    for start in range(0, len(rows), _AT_ONCE):
        some = [llm.chat_format.ids(row["prompt"]) for row in rows[start : start + _AT_ONCE]]
        pieces = llm.stream_all(some, chat=True, temperature=0.0, max_tokens=_LONGEST)
        for which, _, result in pieces:
            if result is not None:
                texts[start + which] = result.text
    return texts


def _grade(name: str, answered: list[dict[str, Any]]) -> Grade:
    count = len(answered)
    share = sum(row["right"] for row in answered) / count
    commonest = Counter(row["answer"] for row in answered).most_common(1)[0][1]
    return Grade(
        exam=name,
        questions=count,
        right=share,
        error=math.sqrt(share * (1 - share) / count),
        commonest=commonest / count,
        unknown=sum(UNKNOWN in row["given"] for row in answered) / count,
    )
