"""A toy model whose answers a wrong state would change, and how the tests of the engine ask it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from griffin.engine import Context, End, Engine, Event, Request
from griffin.model import Griffin, GriffinConfig, State
from griffin.sampling import SamplingParams

V = 64
CHUNK = 8

# Widths are multiples of 64, so that a row has the same bits alone and in company.
CONFIG = GriffinConfig(
    vocab_size=V,
    width=64,
    mlp_width=128,
    lru_width=64,
    num_heads=4,
    num_gate_blocks=4,
    block_types=("recurrent", "attention", "recurrent"),
    attention_window_size=8,
    logits_soft_cap=30.0,
    scale_embeddings=True,
)


def make_model(config: GriffinConfig = CONFIG) -> Griffin:
    torch.manual_seed(0)
    model = Griffin(config).eval().requires_grad_(False)
    # Sharper than the initial values, so that a wrong state shows.
    for parameter in model.parameters():
        parameter.mul_(2).add_(0.05 * torch.randn_like(parameter))
    return model


def ids(length: int, seed: int = 0) -> list[int]:
    return torch.randint(V, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def ask(length: int = 5, seed: int = 0, max_tokens: int = 12, **fields: Any) -> Request:
    own = ("stop_ids", "vocab_size", "constraint", "adapter")
    given = {key: fields.pop(key) for key in own if key in fields}
    context = Context(state=fields.pop("state", None)).then(fields.pop("ids", ids(length, seed)))
    params = SamplingParams(seed=seed, max_tokens=max_tokens, **fields)
    return Request(context=context, params=params, **given)


def plain(events: Iterable[Event | End], choice: int = 0) -> list[tuple[int, float]]:
    """Return ids and log-probabilities of one choice, to be compared to the bit."""
    return [(e.id, e.logprob) for e in events if isinstance(e, Event) and e.choice == choice]


def run(engine: Engine, limit: int = 10_000) -> list[Event | End]:
    """Step until nothing more happens."""
    events: list[Event | End] = []
    for _ in range(limit):
        before = engine.stats()
        events += (new := engine.step())
        if not new and engine.stats() == before:
            return events
    raise AssertionError("the engine does not come to an end")


def alone(model: Griffin, request: Request, chunk: int = CHUNK) -> list[tuple[int, float]]:
    """Return what a request gets from an engine of its own."""
    engine = Engine(model, 1, chunk=chunk)
    engine.submit(request)
    return plain(run(engine))


def zero_slots(engine: Engine, first: int = 0) -> bool:
    """Return whether the slots from `first` on hold nothing."""
    slots = engine._core.batch.slots
    return all(not t[first:].any() for t in slots._tensors)


def same(one: State, other: State) -> bool:
    pairs = [(one.pos, other.pos)]
    pairs += [
        p for a, b in zip(one.layers, other.layers, strict=True) for p in zip(a, b, strict=True)
    ]
    return all(torch.equal(a, b) for a, b in pairs)


def ends(events: Iterable[Event | End]) -> list[tuple[int, int, str]]:
    """Return (request, choice, finish reason) of those that tell an end."""
    return [(e.index, e.choice, e.finish_reason) for e in events if e.finish_reason]


def of(events: Iterable[Event | End], index: int) -> list[Event | End]:
    """Return the events of one request."""
    return [e for e in events if e.index == index]
