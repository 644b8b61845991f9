"""The loop over rows: alone or in company, stopping row by row, going on from a state."""

from __future__ import annotations

import copy

import pytest
import torch

from griffin.engine import Context, Request, Seen, generate
from griffin.model import Griffin, State
from griffin.sampling import SamplingParams
from tests.support.layers import recurrent
from tests.support.toy_engine import V, make_model


@pytest.fixture(scope="module")
def model() -> Griffin:
    return make_model()


def rows(generation, count):
    out = [[] for _ in range(count)]
    for event in generation:
        out[event.index].append(event)
    return out


def requests() -> list[Request]:
    made = []
    for n, length in enumerate([1, 3, 5, 13, 40]):
        ids = torch.randint(V, (length,), generator=torch.Generator().manual_seed(n)).tolist()
        params = SamplingParams(
            seed=n, max_tokens=5 + 4 * n, logprobs=2, top_k=20, repetition_penalty=1.2
        )
        made.append(Request(context=Context().then(ids), params=params))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_bit_equal_alone_and_in_company(model, dtype):
    model = copy.deepcopy(model).to(dtype)
    together = rows(generate(model, requests()), 5)
    squeezed = rows(generate(model, requests(), max_rows=2), 5)
    for n, request in enumerate(requests()):
        alone = rows(generate(model, [request]), 1)[0]
        plain = [(e.id, e.logprob, e.alternatives, e.finish_reason) for e in alone]
        for company in (together, squeezed):
            assert [(e.id, e.logprob, e.alternatives, e.finish_reason) for e in company[n]] == plain
        assert len(alone) == 5 + 4 * n


def test_greedy_equals_one_long_forward(model):
    ids = [5, 9, 2, 33]
    events = rows(
        generate(
            model,
            [
                Request(
                    context=Context().then(ids), params=SamplingParams(temperature=0, max_tokens=30)
                )
            ],
        ),
        1,
    )[0]
    answer = [e.id for e in events]
    with torch.no_grad():
        logits, _ = model(torch.tensor([ids + answer]))
    logprobs = logits[0, len(ids) - 1 : -1].log_softmax(-1)
    assert answer == logprobs.argmax(-1).tolist()
    exact = logprobs.gather(1, torch.tensor(answer)[:, None]).squeeze(1)
    assert torch.allclose(torch.tensor([e.logprob for e in events]), exact, atol=1e-4)
    assert len(set(answer)) > 3, (
        "the toy model repeats itself; this test would not see a wrong state"
    )


def test_rows_stop_one_by_one(model):
    plain = SamplingParams(temperature=0, max_tokens=12)
    full = [
        e.id
        for e in rows(generate(model, [Request(context=Context().then([7, 8]), params=plain)]), 1)[
            0
        ]
    ]
    stop = full[4]
    first = full.index(stop)
    batch = [
        Request(context=Context().then([7, 8]), params=plain),
        Request(context=Context().then([7, 8]), params=plain, stop_ids=frozenset({stop})),
        Request(context=Context().then([7, 8]), params=plain.replace(stop_ids=(stop,))),
        Request(context=Context().then([7, 8]), params=plain.replace(max_tokens=1)),
    ]
    generation = generate(model, batch)
    done: dict[int, str] = {}
    sizes = []
    ids = [[], [], [], []]
    for event in generation:
        assert event.index not in done
        ids[event.index].append(event.id)
        if event.finish_reason:
            done[event.index] = event.finish_reason
        sizes.append(generation.running)
    assert ids == [full, full[: first + 1], full[: first + 1], full[:1]]
    assert done == {0: "length", 1: "stop", 2: "stop", 3: "length"}
    assert sizes[-1] == 0 and 1 in sizes


def test_an_answer_goes_on_from_a_state_and_leaves_it_as_it_was(model):
    ids = list(range(20))
    whole = rows(
        generate(
            model,
            [Request(context=Context().then(ids), params=SamplingParams(seed=3, max_tokens=9))],
        ),
        1,
    )[0]
    with torch.no_grad():
        _, state = model.trunk(torch.tensor([ids[:11]]))
    before = state.clone()
    request = Request(
        context=Context(state=state).then(ids[11:]), params=SamplingParams(seed=3, max_tokens=9)
    )
    for _ in range(2):
        again = rows(generate(model, [request]), 1)[0]
        assert [e.id for e in again] == [e.id for e in whole]
    assert torch.equal(state.pos, before.pos)
    for layer, old in zip(state.layers, before.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(layer, old, strict=True))


def test_kept_states_have_read_all_but_the_last_token(model):
    generation = generate(model, requests(), keep_states=True)
    answers = rows(generation, 5)
    for n, request in enumerate(requests()):
        answer = [e.id for e in answers[n]]
        prompt, state = request.context.pending, generation.context(n).state
        assert state.pos.tolist() == [len(prompt) + len(answer) - 1]
        with torch.no_grad():
            a, _ = model(torch.tensor([[answer[-1]]]), state)
            b, _ = model(torch.tensor([[*prompt, *answer]]))
        assert torch.allclose(a[0, -1], b[0, -1], atol=1e-4)


def test_cancelled_rows_fall_silent_and_the_others_do_not_notice(model):
    alone = [e.id for e in rows(generate(model, [requests()[4]]), 1)[0]]
    generation = generate(model, requests(), keep_states=True)
    seen = [[] for _ in range(5)]
    for event in generation:
        seen[event.index].append(event.id)
        if event.index == 3 and len(seen[3]) == 2:
            generation.cancel(3)
            generation.cancel(0)
    assert seen[4] == alone and len(seen[3]) == 2 and len(seen[0]) <= 3
    assert generation.context(3).state.pos.tolist() == [13 + 2 - 1]


def test_the_repetition_penalty_knows_what_a_state_has_read(model):
    seen = torch.zeros(V, dtype=torch.bool)
    plain = SamplingParams(temperature=0, max_tokens=1)
    best = next(generate(model, [Request(context=Context().then([1]), params=plain)])).id
    seen[best] = True
    harsh = plain.replace(repetition_penalty=100.0)
    context = Context(pending=(1,), seen=Seen(seen))
    assert next(generate(model, [Request(context=context, params=harsh)])).id != best


def test_fresh_seeds_are_reported(model):
    request = Request(context=Context().then([4]), params=SamplingParams(max_tokens=12))
    generation = generate(model, [request, request])
    first, second = rows(generation, 2)
    assert generation.seeds[0] != generation.seeds[1]
    replay = Request(
        context=Context().then([4]), params=SamplingParams(max_tokens=12, seed=generation.seeds[1])
    )
    again = rows(generate(model, [replay]), 1)[0]
    assert [e.id for e in again] == [e.id for e in second] != [e.id for e in first]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(context=Context().then([])), "the prompt is empty"),
        (
            Request(context=Context().then([1, V, 2])),
            f"id {V} at position 1; the vocabulary has ids 0 to {V - 1}",
        ),
        (Request(context=Context().then([1, 2, -1])), "id -1 at position 2"),
        (
            Request(context=Context().then([1]), params=SamplingParams(stop_ids=(V,))),
            f"stop_ids names token {V}",
        ),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(model, request_, message):
    with pytest.raises(ValueError, match=message):
        generate(model, [request_])
    with pytest.raises(ValueError, match="prompt 1"):
        generate(model, [Request(context=Context().then([1])), Request(context=Context().then([]))])


def test_a_state_of_two_rows_is_refused(model):
    with torch.no_grad():
        _, state = model.trunk(torch.tensor([[1], [2]]))
    with pytest.raises(ValueError, match="has 2 rows"):
        generate(model, [Request(context=Context(state=state).then([1]))])


def test_an_error_of_one_request_is_raised_and_the_others_go_on(model):
    broken = State.zeros(model.config)
    recurrent(broken).lru.fill_(torch.nan)
    broken.pos.fill_(5)
    generation = generate(model, [Request(context=Context(state=broken).then([1])), requests()[4]])
    with pytest.raises(FloatingPointError, match="not finite"):
        while True:
            assert next(generation).index == 1
    rest = [e.id for e in generation]
    alone = [e.id for e in generate(model, [requests()[4]])]
    assert rest == alone[len(alone) - len(rest) :]


def test_ctrl_c_in_the_middle_of_a_step_ends_the_generation(model, monkeypatch):
    generation = generate(model, requests(), keep_states=True)
    said = [next(generation) for _ in range(9)]
    trunk = model.trunk

    def torn(*rest, **more):
        trunk(*rest, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "trunk", torn)
    with pytest.raises(KeyboardInterrupt):
        said.extend(generation)
    monkeypatch.undo()
    assert next(generation, None) is None
    going = next(n for n in range(5) if not any(e.index == n and e.finish_reason for e in said))
    with pytest.raises(ValueError, match=f"no state of request {going}"):
        generation.context(going)


def test_nothing_to_do_is_done_at_once(model):
    assert list(generate(model, [])) == []
    with pytest.raises(ValueError, match="max_rows must be at least 1"):
        generate(model, requests(), max_rows=0)


def test_memory_of_the_slots_is_given_back_at_the_end(model):
    generation = generate(model, requests())
    engine = generation._engine
    list(generation)
    assert engine.stats().slot_bytes == 0
