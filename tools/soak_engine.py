"""Requests at random, for as long as you like: `python -m tools.soak_engine --minutes 10`.

64 ragged prompts at a time, some with the same beginning, some forked, with seeds, priorities, a
prefix cache and kept states; while they run, some are cancelled (whole, or one choice), some paused
and resumed. Every answer must be the one that the request gets alone, to the bit, and a cancelled
one its beginning; afterwards every slot is free and clean, no kept state is left, and memory is
what it was after the first rounds.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from griffin.engine import Context, Engine, Event, Refused, Request, Ticket
from griffin.engine.prefix_cache import PrefixCache
from griffin.model import Griffin
from griffin.quant.quantize import quantize_model
from griffin.sampling import SamplingParams
from tests.support.toy_engine import CHUNK, CONFIG, ids, make_model, run, same, zero_slots

REQUESTS = 64
Answer = list[tuple[int, float, tuple[tuple[int, float], ...]]]


def make_engine(model: Griffin, slots: int = 8) -> Engine:
    cache = PrefixCache("toy", CONFIG, model.dtype, max_bytes=1 << 20, every=CHUNK)
    return Engine(model, slots, chunk=CHUNK, kept=12, stall_seconds=0.01, prefix_cache=cache)


def random_request(chance: random.Random) -> tuple[Request, int]:
    """Return a request and how many choices are asked for."""
    stem = ids(100, seed=chance.randrange(2))
    prompt = [
        *stem[: chance.choice([0, 8, 21, 64, 90])],
        *ids(chance.randrange(1, 30), chance.getrandbits(30)),
    ]
    params = SamplingParams(
        seed=chance.getrandbits(40),
        max_tokens=chance.randrange(1, 16),
        temperature=chance.choice([0.0, 0.7, 1.0]),
        top_k=chance.choice([0, 5]),
        logprobs=chance.choice([None, 2]),
        repetition_penalty=chance.choice([1.0, 1.3]),
    )
    return Request(
        context=Context().then(prompt),
        params=params,
        stop_ids=frozenset({chance.randrange(64)}),
    ), chance.choice([1, 1, 1, 2, 3])


def answers(events: Sequence[object], n: int) -> list[Answer]:
    found: list[Answer] = [[] for _ in range(n)]
    for event in events:
        if isinstance(event, Event):
            found[event.choice].append((event.id, event.logprob, event.alternatives))
    return found


class Tally(NamedTuple):
    """What rounds consisted of."""

    tokens: int = 0  # compared
    cancelled: int = 0
    paused: int = 0
    forked: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(*map(sum, zip(self, other, strict=True)))


class Client:
    """One request, what came of it, and what it should have been."""

    def __init__(self, engine: Engine, chance: random.Random) -> None:
        self.request, n = random_request(chance)
        self.events: list[object] = []
        self.ticket = engine.submit(
            self.request,
            n=n,
            priority=chance.randrange(3),
            namespace=chance.choice("aaab"),
            sink=self.events.append,
            use_cache=chance.random() < 0.8,
            keep_state=chance.random() < 0.3,
        )

    def check(self, model: Griffin) -> int:
        """Compare with the same choices alone, one by one; return how many tokens were compared."""
        ticket, compared = self.ticket, 0
        for choice, answer in enumerate(answers(self.events, ticket.n)):
            params = self.request.params.replace(seed=ticket.seeds[choice])
            engine = Engine(model, 1, chunk=CHUNK)
            lonely = engine.submit(
                Request(
                    context=self.request.context, params=params, stop_ids=self.request.stop_ids
                ),
                keep_state=True,
            )
            alone = answers(run(engine), 1)[0]
            reason = ticket.finish_reasons[choice]
            assert reason in ("stop", "length", "cancelled"), (reason, self.events[-1])
            if reason == "cancelled":
                assert answer == alone[: len(answer)], f"request {ticket.number} went another way"
            else:
                assert answer == alone and reason == lonely.finish_reasons[0]
                if ticket.keep_state:
                    ours, theirs = ticket.contexts[choice], lonely.context
                    assert ours is not None and ours.state is not None
                    assert theirs is not None and theirs.state is not None
                    assert same(ours.state, theirs.state), f"state of request {ticket.number}"
            compared += len(answer)
        return compared


def play(engine: Engine, model: Griffin, chance: random.Random, requests: int = REQUESTS) -> Tally:
    """Run one round and check it; return what it consisted of."""
    clients: list[Client] = []
    paused: set[Ticket] = set()
    pauses = 0
    threaded = engine._thread is not None
    while len(clients) < requests or not all(c.ticket.done for c in clients):
        if len(clients) < requests and chance.random() < 0.6:
            clients.append(Client(engine, chance))
        ticket = chance.choice(clients).ticket if clients else None
        doing = chance.random()
        if ticket is not None and not ticket.done:
            if doing < 0.05:
                engine.cancel(ticket, chance.choice([None, chance.randrange(ticket.n)]))
            elif doing < 0.14:
                try:
                    engine.pause(ticket)
                    paused.add(ticket)
                    pauses += 1
                except Refused as refused:
                    assert refused.code == "no_room"
        if paused and (doing > 0.9 or len(clients) == requests):
            resumed = chance.choice(sorted(paused, key=lambda t: t.number))
            engine.resume(resumed)
            paused.discard(resumed)
        if threaded:
            time.sleep(0.0005)
        else:
            engine.step()
    while engine.stats().busy or engine.stats().kept:
        time.sleep(0.001)
        assert threaded, "a slot or a place was lost"
    assert zero_slots(engine) and not engine._core.live and engine.stats().waiting == 0
    tokens = sum(client.check(model) for client in clients)
    ends = [reason for client in clients for reason in client.ticket.finish_reasons]
    return Tally(
        tokens, ends.count("cancelled"), pauses, sum(client.ticket.n > 1 for client in clients)
    )


def resident_bytes() -> int:
    """Bytes this process holds resident (Linux)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def soak(seconds: float, seed: int = 0, *, log: bool = False) -> None:
    """Play rounds for so long, with and without packed weights, stepped and on a thread.

    Plain bfloat16 is left out: torch's product with a matrix of few outputs now and then rounds a
    row of a short call otherwise than the same row of a longer one.
    """
    chance = random.Random(seed)
    packed = [
        quantize_model(make_model().to(dtype), format)
        for format, dtype in (
            ("int8", torch.float32),
            ("bf16", torch.bfloat16),
            ("int4", torch.bfloat16),
        )
    ]
    models = [make_model(), *packed]
    engines = [make_engine(model) for model in models]
    for engine in engines[1:]:
        engine.start()
    end, rounds, tally, first = time.monotonic() + seconds, 0, Tally(), 0
    while time.monotonic() < end or rounds < 3 * len(models):
        which = rounds % len(models)
        tally = tally.plus(play(engines[which], models[which], chance))
        rounds += 1
        held = resident_bytes()
        if rounds == 2 * len(models):
            first = held
        if log:
            print(f"{rounds:4} rounds, {tally}, {held / 2**20:.1f} MiB", flush=True)
    assert resident_bytes() - first < 8 << 20, (
        f"memory grew from {first:,} to {resident_bytes():,} bytes"
    )
    for engine in engines:
        engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    soak(60 * given.minutes, given.seed, log=True)
