"""What the engine costs above the plain loop, and gives: one request and several together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from griffin.bench.measurement import Measurement
from griffin.bench.run import Bench, Plan, RunningProgram

WARM_TOKENS = 2


@dataclass
class _Turns:
    """A program and its turns: tokens/s, and the read rates around each, of the three ways."""

    runner: RunningProgram
    speeds: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    reads: dict[tuple[str, int], list[float]] = field(default_factory=dict)


def engine(plan: Plan, requests: int, context: int) -> Iterator[Measurement]:
    """Decode after `context` tokens: by the plain loop, by the engine, and `requests` together.

    All three in one process on the same weights, taking turns, greedily. The plain loop is what
    `decode` measures; the engine runs on a thread of its own and hands every token over to another.
    The report's notes say how much longer a step of the engine takes, the median over the rounds,
    and how many times the tokens/s of one request all together get.
    """
    with Bench(plan) as bench:
        programs = [_Turns(runner) for runner in bench.runners]
        ways = list(dict.fromkeys([("decode", 1), ("engine", 1), ("engine", requests)]))
        for turns in programs:
            runner = turns.runner
            runner.ask("read", length=context)
            runner.ask("decode", count=WARM_TOKENS)
            runner.ask("rows", slots=requests)
            runner.ask("memory", forget=True)
            for way in ways:
                _take(runner, way, WARM_TOKENS)
        for _ in range(plan.rounds):
            if requests > 1:
                bench.products(plan.chunk)
            for turns in programs:
                for way in ways:
                    before = bench.read_rate()
                    turns.speeds.setdefault(way, []).append(_take(turns.runner, way, plan.tokens))
                    turns.reads.setdefault(way, []).extend([before, bench.read_rate()])
        for turns in programs:
            runner = turns.runner
            for what, count in ways:
                runner.samples, runner.reads = turns.speeds[what, count], turns.reads[what, count]
                work = runner.ask("decode_work", context=context, batch=count)
                yield bench.finish(
                    what, runner, count, context, work, plan.chunk if count > 1 else None
                )
            plan.report.notes.append(note(runner.facts["format"], turns.speeds, requests))


def _take(runner: RunningProgram, way: tuple[str, int], tokens: int) -> float:
    """Let a program decode in one way; return the tokens/s of all sequences."""
    what, count = way
    if what == "decode":
        return tokens / sum(runner.ask("decode", count=tokens)["seconds"])
    return count * tokens / runner.ask("rows_decode", count=tokens, rows=count)["seconds"]


def note(format: str, speeds: dict[tuple[str, int], list[float]], requests: int) -> str:
    """Say what rounds show, each compared within itself: between two the machine may change."""
    alone = speeds["engine", 1]
    more = statistics.median(
        plain / own - 1 for plain, own in zip(speeds["decode", 1], alone, strict=True)
    )
    said = f"{format}: a step of the engine takes {more:+.1%} beside the plain loop's"
    if requests > 1:
        gain = statistics.median(
            together / one for together, one in zip(speeds["engine", requests], alone, strict=True)
        )
        said += f"; {requests} requests together get {gain:.2f} times the tokens/s of one"
    return said
