"""How soon an answer begins in a long conversation: cold, from cache, session or a restart."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from griffin.bench.measurement import Measurement, timed
from griffin.bench.run import Bench, Plan, RunningProgram

_CALLS = {
    "prefix cache": "talk_by_cache",
    "session": "talk_by_session",
    "restart": "talk_restarted",
}


def conversation(
    plan: Plan, length: int, follow_up: int, cold_tokens: int | None
) -> Iterator[Measurement]:
    """Measure the seconds to an answer's first token, to `follow_up` tokens after `length` others.

    cold_tokens: read so many of the conversation only, and scale what that took; all if None.
                 Reading slows down until the window is full, so what is scaled is rather too short.
    Yields "conversation, cold" (everything is read; once, and reckoned from the conversation's own
    reading), then from the prefix cache and from the session in the same process, and "restart": in
    a fresh process with its model loaded, from opening the store. The report's notes have the
    shares of the cold time.
    """
    for format in plan.formats:
        with tempfile.TemporaryDirectory(prefix="griffin-bench-") as folder:
            yield from _of(
                dataclasses.replace(plan, formats=[format]), folder, length, follow_up, cold_tokens
            )


def _of(
    plan: Plan, folder: str, tokens: int, follow_up: int, cold_tokens: int | None
) -> Iterator[Measurement]:
    """Measure the one format of a plan, with a folder to keep the conversation in."""
    seconds: dict[str, list[float]] = {}
    first: dict[int, int] = {}  # seed of a follow-up -> the first token of its answer

    def ask(runner: RunningProgram, way: str, seed: int, **arguments: Any) -> None:
        took = runner.ask(_CALLS[way], count=follow_up, seed=seed, **arguments)
        seconds.setdefault(way, []).append(took["seconds"])
        if first.setdefault(seed, took["token"]) != took["token"]:
            raise RuntimeError(
                f"the answer by {way} begins otherwise; the figures would compare two things"
            )

    with Bench(plan) as bench:
        (runner,) = bench.runners
        bench.read_rate()
        runner.ask("talk", folder=folder)
        began = runner.ask("talk_begin", tokens=tokens, read=cold_tokens or tokens)
        cold = began["seconds"] * (tokens + follow_up) / began["tokens"]
        yield _measured(bench, runner, "cold", tokens, [cold])
        for seed in range(1, plan.rounds + 1):
            for way in ("prefix cache", "session"):
                ask(runner, way, seed)
        for way in ("prefix cache", "session"):
            yield _measured(bench, runner, way, tokens, seconds[way])
    for seed in range(1, plan.rounds + 1):
        with Bench(plan) as bench:
            (runner,) = bench.runners
            bench.read_rate()
            ask(runner, "restart", seed, folder=folder)
            if seed == plan.rounds:
                yield _measured(bench, runner, "restart", tokens, seconds["restart"])
    read = "" if began["tokens"] == tokens else f" (reckoned from {began['tokens']:,})"
    shares = ", ".join(
        f"{way} {statistics.median(found):.3g} s ({statistics.median(found) / cold:.2%})"
        for way, found in seconds.items()
    )
    format, loading = runner.facts["format"], runner.facts["load_seconds"]
    plan.report.notes.append(
        f"{format}: first token {follow_up:,} tokens after {tokens:,}: cold {cold:.3g} s{read},"
        f" {shares}; loading the model, in none of them, took {loading:.3g} s"
    )


def _measured(
    bench: Bench, runner: RunningProgram, way: str, tokens: int, seconds: Sequence[float]
) -> Measurement:
    """Put the seconds of one way together; `samples` are those of the rounds."""
    memory = runner.ask("memory", forget=True)
    read = bench.rate(f"read, {bench.plan.threads} threads")
    place = bench.place(runner, 1, tokens)
    found = timed(
        f"conversation, {way}",
        place,
        statistics.median(seconds),
        memory,
        read_rate=read,
        samples=seconds,
    )
    bench.plan.report.measurements.append(found)
    return found
