"""What the model is worth in each format, and what drafts save: the same questions to each."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from griffin.llm import LLM
from griffin.loading import load
from griffin.train.export import measure
from griffin.train.recipe import load_recipe
from griffin.train.report import Reporter
from mini.chats import LONGEST, asked
from mini.exam import examine


def write_formats(
    models: Mapping[str, Path], recipe: Path, exams: Path, out: Path, *, most: int, talks: int
) -> None:
    """Measure each model folder, by the name of its format, and write a JSON object into `out`.

    Of each: bytes of its weights, held-out bits a byte of `recipe`, right answers to the first
    `most` questions of each examination, and tokens/s over the fixed chats, alone, without drafts
    and with. Raises RuntimeError if an answer is another one with drafts.
    """
    found = dict[str, dict[str, Any]]()
    for name, folder in models.items():
        click.echo(f"{name} ...", err=True)
        llm = load(folder)
        grades = examine(llm, exams, None, lambda grade: None, most=most)
        questions = sum(grade.questions for grade in grades)
        held_out = measure(load_recipe(recipe), folder, Reporter())["bits_per_byte"]
        found[name] = {
            "bytes": (folder / "model.safetensors").stat().st_size,
            "bits_per_byte": held_out["whole documents"],
            "questions": questions,
            "right": sum(grade.right * grade.questions for grade in grades) / questions,
            **_speeds(llm, asked()[:talks]),
        }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _speeds(llm: LLM, talks: list[list[str]]) -> dict[str, float]:
    """Return tokens/s of answers to the first turns, prompts not counted."""
    seconds, tokens = {"plain": 0.0, "drafted": 0.0}, 0
    llm.chat(talks[0][0], temperature=0.0, max_tokens=LONGEST)  # what a first call makes, is there
    for said, *_ in talks:
        answers = {}
        for way, draft in (("plain", 0), ("drafted", None)):
            begin = time.perf_counter()
            answer = llm.chat(said, temperature=0.0, max_tokens=LONGEST, draft=draft)
            took = time.perf_counter() - begin - answer.first_seconds
            answers[way] = answer
            seconds[way] += took
        if answers["plain"].ids != answers["drafted"].ids:
            raise RuntimeError(f"{said!r} has another answer with drafts")
        tokens += len(answers["plain"].ids) - 1
    return {way: tokens / of for way, of in seconds.items()}
