"""Whether steps by graphs give what they should: in any company, after a fork, after a pause, and
whether an answer is another one where the prefix cache knew how its prompt begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from griffin.bench.gpu.decoding import tell
from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.scene import Scene
from griffin.engine import Context, End, Engine, Event, Request
from griffin.engine.graphs import Graphs, NoGraphs
from griffin.engine.prefix_cache import PrefixCache
from griffin.model import Griffin, State
from griffin.sampling import SamplingParams

Answer = list[tuple[int, float]]
_CACHE, _KNOWN = 4 << 30, 16  # bytes of a prefix cache, and prompts of which it knows a part
_WAYS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"top_p": 0.9},
    {"top_k": 40},
    {"repetition_penalty": 1.2},
)


def equality(scene: Scene) -> Iterator[Figure]:
    """Compare answers to the bit, and a step's logits with those of the model's own call."""
    model, sizes = scene.model(scene.small, "bf16"), scene.sizes
    # Half of the steps come before the window is full.
    begun = scene.state(model.config, 1, model.config.attention_window_size - sizes.steps // 2)
    most = max(sizes.equal)
    asked = [_request(scene, begun, n) for n in range(most)]
    graphs = scene.graphs()
    without = NoGraphs() if scene.device.type == "cuda" else graphs
    known: list[Answer] = []
    for rows in sizes.equal:
        here = answers(scene, model, asked[:rows], graphs)
        if not (scene.dry and known):  # there one comparison is enough
            plain = answers(scene, model, asked[:rows], without)
            yield _differing(f"{rows} rows by graphs and by the same launches without", here, plain)
        if known:
            yield _differing(f"{len(known)} rows among {rows} and by themselves", here, known)
        known = here
    yield _differing("choices of a fork and each asked alone", *_forks(scene, model, asked))
    paused = answers(scene, model, asked[:2], graphs, pause=True)
    yield _differing("rows that were set aside and restored", paused, known)
    yield from _hits(scene, model)
    yield _nearness(scene, model, begun)


def answers(
    scene: Scene,
    model: Griffin,
    asked: Sequence[Request],
    graphs: Graphs,
    *,
    n: int = 1,
    pause: bool = False,
    cache: PrefixCache | None = None,
) -> list[Answer]:
    """Return the tokens and log-probabilities of every answer to requests that run together.

    n: answers to each. pause: each is set aside once, after a few steps. cache: the engine's.
    """
    rows = len(asked) * n
    engine = Engine(
        model,
        rows,
        chunk=scene.sizes.chunk,
        max_waiting=rows,
        kept=rows,
        graphs=graphs,
        prefix_cache=cache,
    )
    events: list[list[Event | End]] = [[] for _ in asked]
    pairs = zip(asked, events, strict=True)
    tickets = [engine.submit(request, n=n, sink=sink.append) for request, sink in pairs]
    if pause:
        for _ in range(2):
            engine.step()
        for ticket in tickets:
            engine.pause(ticket)
            engine.step()
        for ticket in tickets:
            engine.resume(ticket)
    while not all(ticket.done for ticket in tickets):
        engine.step()
    engine.close()
    for each in events:
        if ended := [event for event in each if isinstance(event, End)]:
            raise RuntimeError(f"a request ended with {ended[0].finish_reason}: {ended[0].error}")
    chosen = [[event for event in each if isinstance(event, Event)] for each in events]
    return [
        [(event.id, event.logprob) for event in each if event.choice == choice]
        for each in chosen
        for choice in range(n)
    ]


def _request(scene: Scene, begun: State, number: int) -> Request:
    (id,) = scene.tokens(scene.small, 1, 1, number)[0].tolist()
    params = SamplingParams(
        seed=number,
        max_tokens=scene.sizes.steps,
        min_tokens=scene.sizes.steps,
        ignore_eos=True,
        **_WAYS[number % len(_WAYS)],
    )
    return Request(context=Context(state=begun).then([id]), params=params)


def _forks(
    scene: Scene, model: Griffin, asked: Sequence[Request]
) -> tuple[list[Answer], list[Answer]]:
    """Return two choices of a request, and what it gets with the seed of each."""
    one = asked[1 % len(asked)]
    seeds = [one.params.replace(seed=(one.params.seed or 0) + n) for n in range(2)]
    apart = [Request(context=one.context, params=params) for params in seeds]
    graphs = scene.graphs()
    return answers(scene, model, [one], graphs, n=2), answers(scene, model, apart, graphs)


def _hits(scene: Scene, model: Griffin) -> Iterator[Figure]:
    """Answer prompts whose beginning, which ends inside a chunk, the prefix cache knows: as it is,
    where the next call has fewer rows than without a cache, and as an exact one, where it has not.
    """
    chunk, graphs = scene.sizes.chunk, scene.graphs()
    count = 2 if scene.dry else _KNOWN
    prompts = [scene.tokens(model.config, 1, 2 * chunk, 100 + n)[0].tolist() for n in range(count)]
    asked = [_greedy(ids, scene.sizes.steps) for ids in prompts]
    begun = [_greedy(ids[: chunk + chunk // 2], 1) for ids in prompts]
    cold = answers(scene, model, asked, graphs)
    for exact in (False, True):
        every = chunk if exact else min(64, chunk)
        how: dict[str, Any] = {"every": every, "ends": not exact, "device": scene.device}
        cache = PrefixCache("", model.config, model.dtype, max_bytes=_CACHE, **how)
        answers(scene, model, begun, graphs, cache=cache)
        here = answers(scene, model, asked, graphs, cache=cache)
        if cache.counts.hits < count:
            raise RuntimeError(f"the prefix cache knew {cache.counts.hits} of {count} prompts")
        if exact:
            yield _differing("after a hit of an exact prefix cache and read whole", here, cold)
            continue
        first = [abs(one[0][1] - other[0][1]) for one, other in zip(here, cold, strict=True)]
        ids = [[[id for id, _ in answer] for answer in each] for each in (here, cold)]
        yield Figure(
            what=f"answers of {count} with other tokens after a hit of the prefix cache",
            value=sum(one != other for one, other in zip(*ids, strict=True)),
            unit="",
            detail={"tokens": scene.sizes.steps, "first_logprob_differs": max(first)},
        )


def _greedy(ids: Sequence[int], tokens: int) -> Request:
    params = SamplingParams(temperature=0.0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True)
    return Request(context=Context().then(ids), params=params)


def _differing(what: str, some: Sequence[Answer], others: Sequence[Answer]) -> Figure:
    """Count the tokens that differ, or whose log-probabilities do, as far as both lists go."""
    pairs = list(zip(some, others, strict=False))
    count = sum(
        sum(a != b for a, b in zip(mine, other, strict=False)) + abs(len(mine) - len(other))
        for mine, other in pairs
    )
    tokens = sum(len(mine) for mine, _ in pairs)
    return Figure(
        what=f"tokens that differ, {what}",
        value=count,
        unit="",
        wanted=0,
        less=True,
        detail={"tokens": tokens},
    )


@torch.no_grad()
def _nearness(scene: Scene, model: Griffin, begun: State) -> Figure:
    """Compare how far a step's logits and the model's own are from those in float32."""
    rows = min(8, max(scene.sizes.equal))
    tokens = scene.tokens(model.config, 1, 1).expand(rows, 1).contiguous()
    state = begun.map(lambda t: t.expand(rows, *t.shape[1:]).clone())
    runner, slots = scene.runner(model, (rows,))
    for row in range(rows):
        slots.put(row, begun)
    tell(runner.memory, rows)
    runner.memory.token[:rows].copy_(tokens[:, 0])
    runner.replays[rows]()
    mine = runner.lines[:rows]

    def called(model: Griffin, state: State) -> Tensor:
        hidden, _ = model.trunk(tokens, state)
        return model.unembed(hidden[:, -1])

    own = called(model, state)
    wide = deepcopy(model).float()
    truth = called(wide, state.map(lambda t: t.float() if t.is_floating_point() else t))
    step, call = ((each - truth).norm() for each in (mine, own))
    return Figure(
        what="error of a step's logits beside that of the model's own call",
        value=float(step / call),
        unit="x",
        wanted=1.25,
        less=True,
        detail={"step": float(step / truth.norm()), "call": float(call / truth.norm())},
    )
