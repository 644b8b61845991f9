"""The engine end to end: many requests, one on an idle engine, and all slots beside bare steps."""

from __future__ import annotations

import time
from collections.abc import Iterator

from griffin.bench.gpu.decoding import tell
from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.scene import Scene
from griffin.engine import Context, End, Engine, Event, Request
from griffin.sampling import SamplingParams


def serving(scene: Scene) -> Iterator[Figure]:
    """Answer many requests with top_p, time the first token of a long prompt, and compare an engine
    whose slots all run with bare steps of as many rows."""
    sizes, model = scene.sizes, scene.model(scene.small, "bf16")
    engine = Engine(
        model,
        sizes.slots,
        chunk=sizes.chunk,
        max_waiting=sizes.requests,
        graphs=scene.graphs(),
    )

    def submit(length: int, tokens: int, seed: int) -> list[float]:
        ids = scene.tokens(model.config, 1, length, seed)[0].tolist()
        params = SamplingParams(
            seed=seed, max_tokens=tokens, min_tokens=tokens, top_p=0.9, ignore_eos=True
        )
        times: list[float] = []

        def sink(event: Event | End) -> None:
            if isinstance(event, End):
                raise RuntimeError(f"a request ended with {event.finish_reason}: {event.error}")
            times.append(time.perf_counter())

        engine.submit(Request(context=Context().then(ids), params=params), sink=sink)
        return times

    def finish() -> float:
        begun = time.perf_counter()
        while engine.stats().busy or engine.stats().waiting:
            engine.step()
        return time.perf_counter() - begun

    submit(sizes.prompt, 2, 0)
    finish()
    begun = time.perf_counter()
    first = submit(min(4_096, sizes.prompts[0]), 1, 1)
    finish()
    yield Figure(
        what="first token, idle engine", value=first[0] - begun, unit="s", wanted=0.06, less=True
    )
    begun = time.perf_counter()
    answers = [submit(sizes.prompt, sizes.answer, 2 + n) for n in range(sizes.requests)]
    took = finish()
    tokens = sum(map(len, answers))
    waits = sorted(times[0] - begun for times in answers)
    yield Figure(
        what=f"engine, {sizes.requests} requests of {sizes.prompt}+{sizes.answer} tokens",
        value=tokens / took,
        unit="tokens/s",
        detail={
            "slots": sizes.slots,
            "steps": engine.stats().steps,
            "seconds": took,
            "first_token_median": waits[len(waits) // 2],
        },
    )
    # The first to begin still run when the last one does, a prompt a turn.
    answers = [submit(1, sizes.slots + 2 * sizes.answer, n) for n in range(sizes.slots)]
    while engine.stats().running < sizes.slots:
        engine.step()
    scene.wait()
    before, begun = sum(map(len, answers)), time.perf_counter()
    for _ in range(sizes.answer):
        engine.step()
    scene.wait()
    speed = (sum(map(len, answers)) - before) / (time.perf_counter() - begun)
    engine.close()
    runner, _ = scene.runner(model, (sizes.slots,))
    tell(runner.memory, sizes.slots)
    bare = sizes.slots / scene.seconds(runner.replays[sizes.slots])
    yield Figure(
        what=f"engine, {sizes.slots} rows running, beside bare steps",
        value=speed,
        unit="tokens/s",
        limit=bare,
        wanted=0.9 * bare,
        detail={"share_of_time_idle": max(0.0, 1 - speed / bare)},
    )
