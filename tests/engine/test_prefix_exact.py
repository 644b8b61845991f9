"""Answers of a real model are bit-equal with the prefix cache and without, at the same cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from griffin.engine.prefix_cache import PrefixCache
from griffin.model import Griffin, State
from tests.support.prefix_audit import EVERY, FAKE, PLENTY, audit, prompts
from tests.support.toy_models import GRIFFIN, make_model

TOY = GRIFFIN.replace(
    width=16,
    mlp_width=16,
    lru_width=16,
    num_heads=2,
    num_kv_heads=1,
    num_gate_blocks=2,
    rope_fraction=0.5,
    block_types=("recurrent", "attention", "recurrent"),
    attention_window_size=10,
    vocab_size=FAKE.vocab_size,
)


def answer(
    model: Griffin, ids: list[int], state: State | None, cuts: Sequence[int], tell: Callable
) -> tuple[torch.Tensor, list[int]]:
    """Read a prompt from where the state is, cut at `cuts`, and choose three tokens greedily.

    tell: called with ids and their state after each piece and at the end. Returns all logits and
          the ids.
    """
    done = 0 if state is None else int(state.pos)
    logits = []
    for stop in sorted({cut for cut in cuts if done < cut < len(ids)} | {len(ids)}):
        out, state = model(torch.tensor([ids[done:stop]]), state)
        done = stop
        tell(ids[:done], state)
    for _ in range(3):
        logits.append(out[0, -1])
        ids = [*ids, int(out[0, -1].argmax())]
        out, state = model(torch.tensor([ids[-1:]]), state)
    tell(ids, state)
    return torch.stack([*logits, out[0, -1]]), ids


def compare_on_and_off(
    count: int, chunk: int, max_bytes: int, seed: int, longest: int = 48
) -> PrefixCache:
    """Answer prompts with the cache and without it at the same cuts, and compare all logits, bit
    for bit."""
    model = make_model(TOY, seed=seed)
    cache = PrefixCache("toy", TOY, torch.float32, max_bytes=max_bytes, every=EVERY)
    cuts_of: dict[tuple[int, ...], tuple[int, ...]] = {(): ()}  # how what is kept was read

    for ids, _ in prompts(count, longest, seed):
        hit = cache.find(ids)
        before = cuts_of[tuple(ids[: hit.tokens])] + (hit.tokens,)
        cuts = [*before, *range(chunk, len(ids), chunk)]

        def tell(read: list[int], state: State, before=before, prompt=ids) -> None:
            if len(read) % EVERY == 0 or len(read) >= len(prompt):
                held = cache.counts.checkpoints
                cache.put(read, state)
                if cache.counts.checkpoints > held or tuple(read) not in cuts_of:
                    own = range(
                        before[-1] // chunk * chunk + chunk, min(len(read), len(prompt)), chunk
                    )
                    singles = range(len(prompt), len(read)) if len(read) > len(prompt) else ()
                    cuts_of[tuple(read)] = (*before, *own, *singles)

        on, full = answer(model, ids, hit.state, cuts, tell)
        # The answers in what was known came token by token, and are read so again.
        off, same = answer(model, ids, None, cuts, lambda *_: None)
        assert torch.equal(on, off) and full == same, f"{hit.tokens} of {len(ids)} tokens reused"
        assert cache.nbytes <= max_bytes
    audit(cache)
    return cache


@pytest.mark.thorough
def test_on_equals_off() -> None:
    counts = compare_on_and_off(80, chunk=EVERY, max_bytes=PLENTY, seed=0).counts
    assert counts.hits > 50 and counts.evicted == 0


@pytest.mark.thorough
def test_on_equals_off_when_much_is_evicted() -> None:
    """Token by token, so that what is read anew has the same cuts whatever was evicted."""
    counts = compare_on_and_off(25, chunk=1, max_bytes=100_000, seed=1).counts
    assert counts.hits > 10 and counts.evicted > 50


@pytest.mark.slow
def test_on_equals_off_for_ten_thousand_prompts() -> None:
    counts = compare_on_and_off(10_000, chunk=EVERY, max_bytes=PLENTY, seed=2, longest=24).counts
    print(f"\n{counts}")
    assert counts.hits > 9_000
