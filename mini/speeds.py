"""How fast a model answers, and what drafts save: the same questions in each format."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import click

from griffin.llm import LLM
from griffin.loading import load
from mini.chats import LONGEST, asked


def write_speeds(models: Mapping[str, Path], out: Path, talks: int) -> None:
    """Measure each model folder, by the name of its format, and write a JSON object into `out`.

    Of each: tokens/s over the first `talks` of the fixed chats, alone, "plain" without drafts and
    "drafted" with. Raises RuntimeError if an answer is another one with drafts.
    """
    found = dict[str, dict[str, float]]()
    for name, folder in models.items():
        click.echo(f"{name} ...", err=True)
        found[name] = _speeds(load(folder), asked()[:talks])
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
