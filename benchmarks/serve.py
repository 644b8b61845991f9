"""What the server costs above its engine: the same requests, by a call and over HTTP, taking
turns."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.asking import Connection, Told, ask_all
from benchmarks.rivals import ROOT
from griffin.bench.measurement import Measurement, timed
from griffin.bench.process import Worker
from griffin.bench.run import Plan

ENGINE, SERVER = "engine", "server"


@dataclass
class _Seen:
    """Samples of one way of asking: a median of each round."""

    first: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    speed: list[float] = field(default_factory=list)

    def add(self, told: Told, tokens: int) -> None:
        self.first.append(statistics.median(told.first))
        self.step.append(statistics.median(told.rest) / max(1, tokens - 1))
        self.speed.append(len(told.first) * tokens / told.seconds)


def serve(
    plan: Plan,
    *,
    clients: Sequence[int],
    requests: int,
    prompt: int,
    slots: int,
    tokenizer: str | None,
) -> Iterator[Measurement]:
    """Measure the first token, the next ones and whole requests; the limit of the server is its
    engine.

    clients:   how many ask at a time, one after another; each count is measured by itself.
    requests:  of each client in a round. prompt: tokens of one, about.
    slots:     of the engine.
    tokenizer: of the model, where it has none beside its weights.
    Yields, for one client, the seconds to the first token and between tokens; for each count of
    clients the tokens a second of all answers together, `seconds` being those of a request. Each
    once by the engine alone and once by the server. The differences are in the report's notes.
    """
    for format in plan.formats:
        with Worker("the server", "benchmarks.served", ROOT) as worker:
            facts = worker.ask(
                "start",
                model=plan.model,
                tokenizer=tokenizer,
                format=format,
                threads=plan.threads,
                slots=slots,
                waiting=max(64, *clients),
                chunk=plan.chunk,
            )
            for count in sorted(clients):
                for found in _asked(plan, worker, facts, count, requests, prompt):
                    plan.report.measurements.append(found)
                    yield found


def _asked(
    plan: Plan, worker: Worker, facts: dict[str, Any], clients: int, requests: int, prompt: int
) -> Iterator[Measurement]:
    seen = {ENGINE: _Seen(), SERVER: _Seen()}
    with asyncio.Runner() as runner:
        connections = [Connection(facts["host"], facts["port"]) for _ in range(clients)]
        runner.run(_open(connections))
        length = 0
        worker.ask("memory", forget=True)
        for number in range(-1, plan.rounds):  # the first one warms up
            prompts = worker.ask(
                "prompts", count=clients * requests, length=prompt, seed=number + 1
            )
            length = prompts["tokens"]
            told: dict[str, Told] = {}
            # What drifts hits both.
            for program in (ENGINE, SERVER) if number % 2 else (SERVER, ENGINE):
                if program == ENGINE:
                    told[ENGINE] = Told(**worker.ask("alone", clients=clients, tokens=plan.tokens))
                else:
                    texts, bias = prompts["texts"], prompts["bias"]
                    told[SERVER] = runner.run(ask_all(connections, texts, plan.tokens, bias))
            if number >= 0:
                for program in (ENGINE, SERVER):
                    seen[program].add(told[program], plan.tokens)
        runner.run(_close(connections))
    place = {
        "model": plan.model,
        "format": facts["format"],
        "threads": plan.threads,
        "context": length,
    }
    memory = worker.ask("memory")
    if clients == 1:
        yield from _rows("serve, first token", place, memory, seen, "first")
        yield from _rows("serve, next token", place, memory, seen, "step")
        plan.report.notes.append(_told(seen, facts["format"]))
    for program in (ENGINE, SERVER):
        speed = statistics.median(seen[program].speed)
        yield timed(
            "serve, requests",
            place | {"batch": clients, "program": program},
            plan.tokens / speed,
            memory,
            speed=speed,
            most=None if program == ENGINE else statistics.median(seen[ENGINE].speed),
            samples=seen[program].speed,
        )


def _rows(
    what: str, place: dict[str, Any], memory: dict[str, int], seen: dict[str, _Seen], name: str
) -> Iterator[Measurement]:
    engine = statistics.median(getattr(seen[ENGINE], name))
    for program in (ENGINE, SERVER):
        samples = getattr(seen[program], name)
        seconds = statistics.median(samples)
        most = None if program == ENGINE else 1 / engine
        where = place | {"batch": 1, "program": program}
        speeds = [1 / sample for sample in samples]
        yield timed(what, where, seconds, memory, speed=1 / seconds, most=most, samples=speeds)


def _told(seen: dict[str, _Seen], format: str) -> str:
    """Return in words what the server adds: differences of the medians, as the rows have them."""
    first, step = (
        statistics.median(getattr(seen[SERVER], name))
        - statistics.median(getattr(seen[ENGINE], name))
        for name in ("first", "step")
    )
    share = step / statistics.median(seen[ENGINE].step)
    return (
        f"{format}: the server adds {1e3 * first:.2f} ms to the first token and {1e6 * step:.0f} µs"
        f" to each of the next, {share:.1%} of the engine's own time for one"
    )


async def _open(connections: Sequence[Connection]) -> None:
    for connection in connections:
        await connection.open()


async def _close(connections: Sequence[Connection]) -> None:
    for connection in connections:
        await connection.close()
