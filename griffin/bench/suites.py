"""What is measured, in which order: every round asks the machine, then program after program.

Each suite yields measurements as they are known. A program waits in its own process while another
works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from griffin.bench.measurement import Measurement, limit, measured, timed
from griffin.bench.run import Bench, Plan, RunningProgram

_WARM_TOKENS = 2


def decode(plan: Plan, contexts: Sequence[int]) -> Iterator[Measurement]:
    """Decode one sequence after each number of tokens of context."""
    with Bench(plan) as bench:
        for threads in range(1, plan.threads + 1):
            bench.read_rate(threads)
        for context in sorted(contexts):
            yield from _decoding(bench, "decode", 1, context)


def batch(plan: Plan, batches: Sequence[int], context: int) -> Iterator[Measurement]:
    """Decode several sequences together; the limit is the lower of bytes' and products'."""
    with Bench(plan) as bench:
        for count in batches:
            yield from _decoding(bench, "decode", count, context)


def _decoding(bench: Bench, what: str, count: int, context: int) -> Iterator[Measurement]:
    plan = bench.plan
    whole = context + _WARM_TOKENS + plan.rounds * plan.tokens
    for runner in list(bench.runners):
        if bench.attempt(runner, "read", length=context, batch=count, capacity=whole) is not None:
            runner.ask("memory", forget=True)
            bench.attempt(runner, "decode", count=_WARM_TOKENS)
    for _ in range(plan.rounds):
        if count > 1:
            bench.products(plan.chunk)
        for runner in list(bench.runners):
            before = bench.read_rate()
            if (took := bench.attempt(runner, "decode", count=plan.tokens)) is not None:
                runner.samples.append(count * len(took["seconds"]) / sum(took["seconds"]))
                runner.reads += [before, bench.read_rate()]
    for runner in bench.runners:
        work = runner.ask("decode_work", context=context, batch=count)
        yield bench.finish(what, runner, count, context, work, plan.chunk if count > 1 else None)


def prefill(plan: Plan, lengths: Sequence[int]) -> Iterator[Measurement]:
    """Read a prompt, and compute the logits of its last position."""
    with Bench(plan) as bench:
        for runner in list(bench.runners):
            bench.attempt(runner, "read", length=min(lengths[0], plan.chunk))
        for length in lengths:
            rows = min(plan.chunk, length)
            for runner in bench.runners:
                runner.ask("memory", forget=True)
            for number in range(plan.rounds):
                bench.read_rate()
                bench.products(rows, also=("float32", "bfloat16"))
                for runner in list(bench.runners):
                    took = bench.attempt(
                        runner, "read", length=length, capacity=length, seed=number
                    )
                    if took is not None:
                        runner.samples.append(length / took["seconds"])
            for runner in bench.runners:
                work = runner.ask("prefill_work", length=length)
                yield bench.finish("prefill", runner, 1, length, work, rows)


def context(plan: Plan, contexts: Sequence[int]) -> Iterator[Measurement]:
    """Read on and on; at each number of tokens, decode some and look at the memory.

    A program that can goes on reading where it was; the others read anew. Yields a prefill (of what
    was read since the last stop) and a decode measurement at each.
    """
    contexts = sorted(contexts)
    with Bench(plan) as bench:
        for runner in list(bench.runners):  # everything is paged in before the first clock starts
            if bench.attempt(runner, "read", length=min(contexts[0], 16)) is not None:
                bench.attempt(runner, "decode", count=1)
        seen = {id(runner): 0 for runner in bench.runners}
        for stop in contexts:
            bench.read_rate()
            bench.products(min(plan.chunk, stop))
            for runner in list(bench.runners):
                yield from _stop(bench, runner, seen[id(runner)], stop)
                seen[id(runner)] = _reach(plan, stop)


def _reach(plan: Plan, context: int) -> int:
    """Return how many tokens a sequence has after the decoding that follows `context` of them."""
    return context + _WARM_TOKENS + plan.rounds * plan.tokens


def _stop(bench: Bench, runner: RunningProgram, seen: int, stop: int) -> Iterator[Measurement]:
    """Read up to `stop` tokens, then decode; nothing more is yielded once the program was
    dropped."""
    plan, ahead = bench.plan, _reach(bench.plan, stop)
    goes_on = runner.facts["resumes"] and 0 < seen < stop
    length = stop - seen if goes_on else stop
    if goes_on:
        runner.ask("reserve", capacity=ahead)
    runner.ask("memory", forget=True)
    took = bench.attempt(
        runner, "read", length=length, fresh=not goes_on, capacity=ahead, seed=stop
    )
    if took is None:
        return
    runner.samples.append(length / took["seconds"])
    work = runner.ask("prefill_work", length=length, start=stop - length)
    yield bench.finish("prefill", runner, 1, stop, work, min(plan.chunk, stop))
    for count in (_WARM_TOKENS, *[plan.tokens] * plan.rounds):
        took = bench.attempt(runner, "decode", count=count)
        if took is None:
            return
        runner.samples.append(count / sum(took["seconds"]))
    del runner.samples[0]  # the one that warmed up
    yield bench.finish("decode", runner, 1, stop, runner.ask("decode_work", context=stop, batch=1))


def load(plan: Plan, context: int) -> Iterator[Measurement]:
    """Load each program in a fresh process, read one token, and (ours) go on from a saved state.

    The median of the rounds is that of a warm disk cache: the first round warms it.
    """
    taken: dict[tuple[str, str, str], list[Measurement]] = {}
    for _ in range(plan.rounds):
        with Bench(plan) as bench:
            bench.read_rate()
            for runner in bench.runners:
                for found in _loading(bench, runner, context):
                    taken.setdefault((found.what, found.program, found.format), []).append(found)
    for found in taken.values():
        found.sort(key=lambda m: m.seconds or 0.0)
        samples = tuple(m.seconds for m in found if m.seconds is not None)
        middle = dataclasses.replace(found[(len(found) - 1) // 2], samples=samples)
        plan.report.measurements.append(middle)
        yield middle


def _loading(bench: Bench, runner: RunningProgram, context: int) -> Iterator[Measurement]:
    loading = runner.facts["load_seconds"]
    memory = {key: runner.facts[key] for key in ("resident", "peak")}
    yield _once(bench, runner, "load", 0, loading, None, memory)
    first = runner.ask("read", length=1)["seconds"]
    step = runner.ask("decode_work", context=0, batch=1)["bytes"]
    yield _once(bench, runner, "load, first token", 0, loading + first, step, runner.ask("memory"))
    if runner.program == "griffin":
        runner.ask("read", length=context)
        runner.ask("decode", count=_WARM_TOKENS)
        took = runner.ask("resume")
        memory = runner.ask("memory")
        yield _once(bench, runner, "resume", context, took["load"], None, memory)
        step = runner.ask("decode_work", context=context, batch=1)["bytes"]
        yield _once(
            bench, runner, "resume, first token", context, took["load"] + took["step"], step, memory
        )


def _once(
    bench: Bench,
    runner: RunningProgram,
    what: str,
    context: int,
    seconds: float,
    nbytes: float | None,
    memory: dict[str, int],
) -> Measurement:
    """Describe something that happens once; with `nbytes`, a token came of it, which had to read
    them."""
    read = bench.rate(f"read, {bench.plan.threads} threads")
    return timed(
        what,
        bench.place(runner, 1, context),
        seconds,
        memory,
        speed=1 / seconds if nbytes else None,
        most=limit(nbytes, read),
        nbytes=nbytes,
        read_rate=read,
    )


def kernels(plan: Plan, lengths: Sequence[int]) -> Iterator[Measurement]:
    """Time the kernels of our model by themselves, those of a prompt with each number of tokens."""
    with Bench(plan) as bench:
        for runner in bench.runners:
            for name in runner.ask("kernel_names", lengths=list(lengths)):
                read = bench.read_rate()
                found = runner.ask("kernel", name=name, seconds=plan.probe)
                tokens = found["tokens"]
                work = {"bytes": found["bytes"] / tokens, "operations": 0.0}
                speed = tokens / found["seconds"]
                rate = found["copy_rate"] or read
                result = measured(name, bench.place(runner, 1, tokens), [speed], work, rate, None)
                plan.report.measurements.append(result)
                yield result
