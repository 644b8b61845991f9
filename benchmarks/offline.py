"""What `griffin batch` gains: a file of prompts with all slots full, beside one after another.

Both are the server's own application in this process, with the prefix cache; the prompts begin
alike, and every answer has the same length. Nothing is drafted: weights that are random go in
circles, of which every draft is right.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from griffin.batch import BatchRun, make_service, opened, post
from griffin.bench.measurement import Measurement, timed
from griffin.bench.memory import forget_peak, resident
from griffin.bench.ours import format_of, load_options
from griffin.bench.run import Plan
from griffin.llm import LLM
from griffin.loading import load


def offline(
    plan: Plan, *, prompts: int, alone: int, shared: int, slots: int, tokenizer: str | None
) -> Iterator[Measurement]:
    """Measure a file of prompts, and some of them one after another.

    prompts:   lines of the file. alone: how many of them are also answered one after another.
    shared:    tokens that all of them begin with, about; each goes on with some of its own.
    slots:     of the batch. tokenizer: of the model, where it has none beside its weights.
    `plan.tokens` is the length of each answer. Yields answers' tokens a second of both; the limit
    of the batch is none, and its ratio to one after another is in the report's notes.
    """
    torch.set_num_threads(plan.threads)
    for format in plan.formats:
        how: dict[str, Any] = load_options(format)
        llm = load(plan.model, tokenizer=tokenizer, device="cpu", **how)
        bodies = list(_bodies(llm, prompts, shared, plan.tokens))
        place = {
            "model": plan.model,
            "format": format_of(llm.model),
            "threads": plan.threads,
            "context": len(llm.tokenizer.encode(bodies[0]["prompt"])),
            "program": "griffin",
        }
        found = {}
        for what, batch in (("one after another", 1), ("a file", slots)):
            forget_peak()
            if batch == 1:
                count, seconds = alone, _one_after_another(llm, bodies[:alone], plan.chunk)
            else:
                count, seconds = prompts, _together(llm, bodies, slots, plan.chunk)
            speed = found[what] = count * plan.tokens / seconds
            row = timed(what, place | {"batch": batch}, seconds / count, resident(), speed=speed)
            plan.report.measurements.append(row)
            yield row
        gain = found["a file"] / found["one after another"]
        plan.report.notes.append(
            f"{place['format']}: {prompts} prompts that share about {shared} tokens, {plan.tokens}"
            f" tokens an answer: {gain:.2f} times {alone} of them one after another"
        )


def _bodies(llm: LLM, prompts: int, shared: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Yield requests of an exact length whose prompts begin alike.

    What is each one's own is short: a model of random weights has a tokenizer of bytes, and a
    question has some 12 tokens in a vocabulary of 256,000.
    """
    words, beginning = "the owl looks over the field and counts what moves in it ", ""
    while len(llm.tokenizer.encode(beginning)) < shared:
        beginning += words
    for number in range(prompts):
        yield {
            "prompt": f"{beginning}\nAt hour {number}?",
            "max_tokens": tokens,
            "ignore_eos": True,
            "seed": number,
            "draft": 0,
        }


def _one_after_another(llm: LLM, bodies: list[dict[str, Any]], chunk: int) -> float:
    """Return the seconds that requests take, each sent when the one before is answered."""
    service = make_service(llm, name="bench", slots=1, chunk=chunk)

    async def go() -> float:
        async with opened(service) as app:
            begun = time.monotonic()
            for body in bodies:
                status, answer = await post(app, "/v1/completions", body)
                _check(status, answer, body)
            return time.monotonic() - begun

    return asyncio.run(go())


def _together(llm: LLM, bodies: list[dict[str, Any]], slots: int, chunk: int) -> float:
    """Return the seconds that a file of requests takes."""
    service = make_service(llm, name="bench", slots=slots, chunk=chunk)
    with tempfile.TemporaryDirectory() as folder:
        source, target, errors = (Path(folder) / name for name in ("in", "out", "errors"))
        source.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        begun = time.monotonic()
        BatchRun(service, source, target, errors, at_once=2 * slots).run()
        seconds = time.monotonic() - begun
        answers = [json.loads(line)["response"] for line in target.read_text().splitlines()]
    assert len(answers) == len(bodies), "not all were answered"
    for answer, body in zip(answers, bodies, strict=True):
        _check(answer["status_code"], answer["body"], body)
    return seconds


def _check(status: int, answer: dict[str, Any], body: dict[str, Any]) -> None:
    told = answer.get("usage", {}).get("completion_tokens")
    assert status == 200 and told == body["max_tokens"], answer
