"""A state that was cut and joined is the state it was, to the bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from griffin.engine.pieces import (
    RecurrentPart,
    Span,
    cut_recurrent,
    cut_span,
    join,
    merge,
    recurrent_bytes,
    span_bytes,
    unwritten,
    window,
)
from griffin.model import AttentionState, Griffin, GriffinConfig, State
from tests.support.closeness import assert_states_equal, tensors
from tests.support.layers import attention, recurrent
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens

S = GRIFFIN.attention_window_size
SHAPES = {
    "griffin": GRIFFIN,
    "hawk": HAWK,
    "attention only": GRIFFIN.replace(block_types=("attention", "attention")),
    "no convolution": GRIFFIN.replace(conv_width=1),
}


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest) -> Griffin:
    return make_model(SHAPES[request.param])


def after(model: Griffin, length: int) -> State:
    if not length:
        return State.zeros(model.config)
    return model.trunk(make_tokens(model.config, 1, length))[1]


def spans(state: State, size: int) -> list[Span]:
    """Cut the window of a state along a grid of `size`."""
    pos = int(state.pos)
    first = max(0, pos - S)
    edges = sorted({first, pos, *(edge for edge in range(0, pos, size) if edge > first)})
    return [cut_span(state, a, b) for a, b in pairwise(edges)]


@pytest.mark.parametrize("length", [0, 5, S, 3 * S])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_unwritten_state_is_whole_and_its_tensors_lie_apart(shape, length, tmp_path):
    like = State.zeros(SHAPES[shape], 1, dtype=torch.bfloat16)
    state = unwritten(SHAPES[shape], length, torch.bfloat16)
    assert [(t.shape, t.dtype, t.is_contiguous()) for t in tensors(state)] == [
        (t.shape, t.dtype, True) for t in tensors(like)
    ]
    assert state.pos.tolist() == [length] and all(
        t.data_ptr() % 64 == 0 for t in tensors(state) if t.numel()
    )
    for layer in state.layers:
        if isinstance(layer, AttentionState):
            assert not layer.k[:, length:].any() and not layer.v[:, length:].any()
    for number, tensor in enumerate(tensors(state)[1:]):
        tensor.fill_(number)
    assert all(bool((tensor == number).all()) for number, tensor in enumerate(tensors(state)[1:]))
    state.save(tmp_path / "state")
    assert State.load(tmp_path / "state").pos.tolist() == [length]


@pytest.mark.sweep
@pytest.mark.parametrize("length", [0, 1, 2, 5, S - 1, S, S + 1, 2 * S, 2 * S + 7, 3 * S - 1])
@pytest.mark.parametrize("size", [1, 5, 8, S, 100])
def test_joined_is_what_was_cut(model: Griffin, length: int, size: int) -> None:
    state = after(model, length)
    parts = spans(state, size)
    joined = join(model.config, length, cut_recurrent(state), reversed(parts), torch.float32)
    assert_states_equal(joined, state)
    assert [t.dtype for t in tensors(joined)] == [t.dtype for t in tensors(state)]
    if needed := window(model.config, length):
        whole = merge(reversed(parts), needed)
        assert (whole.start, whole.stop) == (needed.start, needed.stop)
        again = join(model.config, length, cut_recurrent(state), [whole], torch.float32)
        assert_states_equal(again, state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_joined_in_other_types(dtype: torch.dtype) -> None:
    model = make_model(GRIFFIN, dtype=dtype)
    state = after(model, 2 * S + 3)
    joined = join(GRIFFIN, 2 * S + 3, cut_recurrent(state), spans(state, 8), dtype)
    assert_states_equal(joined, state)
    assert recurrent(joined).lru.dtype == torch.promote_types(dtype, torch.float32)
    assert recurrent(joined).conv.dtype == attention(joined, 1).k.dtype == dtype


def test_spans_of_earlier_states_serve_later_ones(model: Griffin) -> None:
    """Keys and values do not change once they are written: what sharing rests on."""
    tokens = make_tokens(model.config, 1, 3 * S)
    state, kept = None, []
    for start in range(0, 3 * S, 8):
        _, state = model.trunk(tokens[:, start : start + 8], state)
        kept.append(cut_span(state, start, start + 8))
        joined = join(model.config, start + 8, cut_recurrent(state), kept, torch.float32)
        assert_states_equal(joined, state)


def test_a_joined_state_goes_on_like_the_first(model: Griffin) -> None:
    state = after(model, S + 5)
    joined = join(model.config, S + 5, cut_recurrent(state), spans(state, 7), torch.float32)
    more = make_tokens(model.config, 1, S + 2, seed=3)
    logits, end = model(more, state)
    again, same = model(more, joined, donate=True)
    assert torch.equal(again, logits)
    assert_states_equal(same, end)


def test_a_document_in_the_middle_counts_from_its_own_start() -> None:
    model = make_model(GRIFFIN)
    tokens = make_tokens(GRIFFIN, 1, 30)
    positions = torch.tensor([[*range(20), *range(10)]])
    _, state = model.trunk(tokens, segment_pos=positions)
    assert window(GRIFFIN, 10) == range(10)
    joined = join(GRIFFIN, 10, cut_recurrent(state), [cut_span(state, 0, 10)], torch.float32)
    assert_states_equal(joined, state)
    with pytest.raises(
        ValueError, match="positions 0 to 11 are not in the state; it holds 0 to 10"
    ):
        cut_span(state, 0, 11)


def test_parts_share_nothing_with_the_state(model: Griffin) -> None:
    state = after(model, S + 3)
    before = state.clone()
    part, some = cut_recurrent(state), spans(state, 8)
    for tensor in tensors(state):
        tensor.fill_(7)
    joined = join(model.config, S + 3, part, some, torch.float32)
    assert_states_equal(joined, before)
    for tensor in tensors(joined)[1:]:
        tensor.fill_(9)
    assert_states_equal(join(model.config, S + 3, part, some, torch.float32), before)


def test_overlapping_and_useless_spans_do_no_harm() -> None:
    model = make_model(GRIFFIN)
    early, late = after(model, S), after(model, S + 6)
    parts = [
        cut_span(early, 0, 9),
        cut_span(early, 3, 12),
        cut_span(late, 12, 12),
        cut_span(late, 8, S + 6),
    ]
    whole = merge(parts, window(GRIFFIN, S + 6))
    for some in (parts, [whole]):
        assert_states_equal(join(GRIFFIN, S + 6, cut_recurrent(late), some, torch.float32), late)
    with pytest.raises(ValueError, match=f"6 to {S + 6}; no span covers position 6"):
        merge(parts[2:], window(GRIFFIN, S + 6))


def test_what_does_not_fit_is_refused() -> None:
    model = make_model(GRIFFIN)
    state = after(model, S + 4)
    part, whole = cut_recurrent(state), cut_span(state, 4, S + 4)

    def joined(
        recurrent: RecurrentPart = part, *parts: Span, dtype: torch.dtype = torch.float32
    ) -> State:
        return join(GRIFFIN, S + 4, recurrent, parts or (whole,), dtype)

    assert_states_equal(joined(), state)
    with pytest.raises(ValueError, match=f"positions 4 to {S + 4}; no span covers position 9"):
        joined(part, cut_span(state, 4, 9), cut_span(state, 10, S + 4))
    with pytest.raises(ValueError, match="no span covers position 4"):
        joined(part, cut_span(state, 5, S + 4))
    with pytest.raises(ValueError, match=f"no span covers position {S + 3}"):
        joined(part, cut_span(state, 4, S + 3))
    with pytest.raises(
        ValueError, match=r"conv is .* torch.float32; this model's would be .* torch.bfloat16"
    ):
        joined(dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="lru is"):
        joined(part._replace(lru=part.lru[:1]))
    with pytest.raises(ValueError, match="k is"):
        joined(part, whole._replace(stop=S + 5))
    with pytest.raises(ValueError, match="v is"):
        joined(part, whole._replace(v=whole.v.double()))
    with pytest.raises(ValueError, match="pos must be 0 or more"):
        join(GRIFFIN, -1, part, [whole], torch.float32)
    with pytest.raises(ValueError, match="no attention layers"):
        join(HAWK, 4, cut_recurrent(after(make_model(HAWK), 4)), [whole], torch.float32)
    with pytest.raises(ValueError, match="no recurrent layers"):
        join(SHAPES["attention only"], S + 4, part, [], torch.float32)
    for start, stop in ((3, 8), (4, S + 5), (9, 8), (-1, 3)):
        with pytest.raises(ValueError, match=f"positions {start} to {stop} are not in the state"):
            cut_span(state, start, stop)
    for cut in (cut_recurrent, lambda two: cut_span(two, 4, 5)):
        with pytest.raises(ValueError, match="one row, not 2"):
            cut(state.select([0, 0]))


@pytest.mark.parametrize(
    ("name", "recurrent", "token"),
    [("recurrentgemma-2b", 460_800, 8_192), ("recurrentgemma-9b", 1_064_960, 12_288)],
)
def test_sizes_of_the_released_shapes(name: str, recurrent: int, token: int) -> None:
    config = GriffinConfig.preset(name)
    assert recurrent_bytes(config, torch.bfloat16) == recurrent
    assert span_bytes(config, torch.bfloat16) == token
    assert window(config, 5000) == range(2952, 5000)


def test_sizes_are_those_of_the_parts(model: Griffin) -> None:
    state = after(model, 9)
    assert cut_recurrent(state).nbytes == recurrent_bytes(model.config, torch.float32)
    assert cut_span(state, 2, 9).nbytes == 7 * span_bytes(model.config, torch.float32)
