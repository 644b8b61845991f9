"""The model and its state on a device that is not the CPU: nothing waits, nothing crosses."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from griffin import ops
from griffin.model import Griffin, State
from griffin.ops.launching import record
from griffin.ops.linear import _sums_wide, block_linear
from tests.support.closeness import assert_close, assert_states_close, assert_states_equal
from tests.support.stand_in_device import DEVICE, Crossed, Waited, model_on, stand_in
from tests.support.toy_models import GRIFFIN, TOYS, make_model, make_tokens

S = GRIFFIN.attention_window_size
# Of few layers: what runs without values is slow.
SMALL = {
    "griffin": GRIFFIN.replace(block_types=("recurrent", "attention")),
    "hawk": TOYS["hawk"].replace(block_types=("recurrent",)),
}


def tokens(rows: int, steps: int) -> torch.Tensor:
    return torch.zeros(rows, steps, dtype=torch.int64, device=DEVICE)


@pytest.mark.parametrize("kind", SMALL)
def test_no_call_of_the_model_waits_or_crosses(kind: str) -> None:
    """Prompts and steps, with and without a state, with positions given, in every branch there is
    of the length."""
    config = SMALL[kind]
    with stand_in() as watch:
        model = model_on(config)
        hidden, state = model.trunk(tokens(2, 3 * S))
        assert model.unembed(hidden[:, -1]).dtype is torch.float32
        for steps in (3 * S, 3, 1):
            hidden, state = model.trunk(tokens(2, steps), state, donate=True)
        places = torch.arange(3 * S, device=DEVICE) + state.pos[:, None]
        hidden, state = model.trunk(tokens(2, 3 * S), state, places)
        assert (hidden.device, state.pos.device) == (DEVICE, DEVICE)
        assert not watch.crossed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernels", ["eager", "triton"])
def test_a_training_step_asks_for_no_value(kernels: str, dtype: torch.dtype) -> None:
    """Forward and backward, after a state that has a gradient too: on the meta device, which has no
    value to give, because torch's gradients need a stream that the stand-in has not."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = Griffin(SMALL["griffin"])
            ids = torch.zeros(2, 3 * S, dtype=torch.int64)
            places = torch.arange(3 * S).expand(2, -1)
    finally:
        torch.set_default_dtype(before)
    with ops.use(kernels), record() as launches:
        _, state = model.trunk(ids, None, places)
        hidden, _ = model.trunk(ids, state, places)
        model.unembed(hidden).sum().backward()
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
    ran = {each.name for each in launches}
    served = kernels == "triton" and dtype is torch.bfloat16
    assert ({"_gradient_of_queries", "_gradient_of_keys"} <= ran) == served


def test_a_step_copies_no_ring_and_widens_no_gate() -> None:
    """A donated ring is written where it lies, and gates are multiplied as they are."""
    with stand_in() as watch:
        model = model_on(SMALL["griffin"])
        state = State.zeros(SMALL["griffin"], 2, dtype=model.dtype, device=DEVICE)
        rings = [layer.k for layer in _attention(state)]
        watch.launches.clear()
        _, state = model.trunk(tokens(2, 1), state, donate=True)
        assert all(layer.k is ring for layer, ring in zip(_attention(state), rings, strict=True))
        assert watch.launches["scatter_"] == 2 * len(rings)
        assert not watch.launches["baddbmm"]
        assert watch.launches["bmm"] >= 2 * SMALL["griffin"].block_types.count("recurrent")


def _attention(state: State) -> list:
    return [layer for layer in state.layers if hasattr(layer, "k")]


def test_gates_multiplied_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device sums 16-bit products in float32, the gates are what float32 copies give."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator).bfloat16()
        for shape in ((2, 3, 40), (5, 8, 8), (5, 8))
    )
    expected = block_linear(x, weight, bias)
    assert not _sums_wide(x, weight, bias)
    module = import_module("griffin.ops.linear")
    monkeypatch.setattr(module, "_sums_wide", lambda *_: True)
    monkeypatch.setattr(module, "_wide_product", lambda x, w, wide: x.to(wide) @ w.to(wide))
    got = block_linear(x, weight, bias)
    assert got.dtype is torch.float32
    assert (got - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_a_state_on_another_device_is_refused_with_both() -> None:
    with stand_in():
        model = model_on(SMALL["griffin"])
        state = State.zeros(SMALL["griffin"], 1, dtype=model.dtype)
        with pytest.raises(ValueError, match=rf"lies on cpu, not on {DEVICE}; state.to"):
            model.trunk(tokens(1, 1), state)
        with pytest.raises(ValueError, match=rf"tokens lie on cpu, the model on {DEVICE}"):
            model.trunk(torch.zeros(1, 1, dtype=torch.int64))


def test_the_operations_of_a_state() -> None:
    """Copies, forks and joins happen where the state lies; rows named by the host go there."""
    with stand_in() as watch:
        state = State.zeros(SMALL["griffin"], 2, dtype=torch.bfloat16, device=DEVICE)
        joined = State.cat([state, state.clone()])
        joined.check(batch=4)
        assert joined.layers[0][0].device == DEVICE
        assert not watch.crossed
        with watch.crossing():
            fork = joined.select([3, 0, 0])
        assert watch.crossed.total() == 1
        assert (fork.batch, fork.pos.device) == (3, DEVICE)
        with pytest.raises(ValueError, match="rows 0 to 3"):
            joined.select([4])
        with watch.crossing():
            home = fork.to("cpu")
        assert home.pos.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda t: bool(t.any()), Waited),
        (lambda t: t.sum().item(), Waited),
        (lambda t: t.nonzero(), Waited),
        (lambda t: t[t > 0], Waited),
        (lambda t: t.cpu(), Crossed),
        (lambda t: torch.tensor([1.0], device=t.device), NotImplementedError),
        (lambda t: t + torch.zeros(3), Exception),
    ],
)
def test_the_device_of_these_tests_refuses(ask, error) -> None:
    with stand_in():
        here = torch.zeros(3, device=DEVICE)
        assert (here + 1).device == DEVICE
        with pytest.raises(error):
            ask(here)


@pytest.mark.parametrize("wrong", ["id", "position"])
def test_what_cannot_be_read_mars_its_own_row(
    toy: Griffin, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """On a device nobody looks before a call; the row's values are NaN, from there on at least."""
    ids = make_tokens(toy.config, 3, 2 * S + 3)
    places = torch.arange(2 * S + 3).expand(3, -1).clone()
    with ops.use("eager"):
        whole, state = toy(ids, None, places)
    if wrong == "id":
        ids[1, 4] = toy.config.vocab_size + 7
    else:
        places[1, 4] = 9
    with pytest.raises(ValueError, match="outside the vocabulary" if wrong == "id" else "stand"):
        toy(ids, None, places)
    _look_as_on_a_device(monkeypatch)
    with ops.use("eager"):
        marred, after = toy(ids, None, places)
    for row in (0, 2):
        assert torch.equal(marred[row], whole[row])
        assert_states_equal(after.select([row]), state.select([row]))
    assert marred[1, 4:].isnan().all()


def _look_as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("griffin.model.griffin.looks_first", lambda device: False)
    monkeypatch.setattr("griffin.ops.positions._can_look", lambda t: False)


@pytest.mark.parametrize("sizes", [[1] * 5, [S - 1, 2, S + 1, 3 * S + 2, 1]])
@pytest.mark.parametrize("implementation", ["native", "eager"])
def test_a_donated_state_becomes_the_next(
    toy: Griffin, sizes: list[int], implementation: str
) -> None:
    """Given up or kept, a state is followed by the same one; rings given up are written over."""
    ids = make_tokens(toy.config, 2, S + 2 + sum(sizes))
    with torch.no_grad(), ops.use(implementation):
        _, kept = toy(ids[:, : S + 2])
        given = kept.clone()
        for piece in ids[:, S + 2 :].split(sizes, dim=1):
            rings = [layer.k for layer in _attention(given)]
            expected, kept = toy(piece, kept)
            got, given = toy(piece, given, donate=True)
            assert torch.equal(got, expected)
            assert_states_equal(given, kept)
            assert all(a.k is b for a, b in zip(_attention(given), rings, strict=True))


@pytest.mark.parametrize("looked", [True, False])
def test_padded_rows_of_any_length_see_their_ring(
    monkeypatch: pytest.MonkeyPatch, looked: bool
) -> None:
    """In torch's attention too: pads push tokens away from the ring, and they see it all the same,
    whether somebody looked for pads or not."""
    model, pads, begin = make_model(SMALL["griffin"]), 2 * S + 1, S + 3
    ids = make_tokens(model.config, 2, 4 * S + 3)
    if not looked:
        module = import_module("griffin.ops.local_attention.eager")
        monkeypatch.setattr(module, "_may_be_padded", lambda _: True)
    with torch.no_grad(), ops.use("eager"):
        _, state = model(make_tokens(model.config, 2, begin, seed=7))
        places = torch.arange(4 * S + 3).expand(2, -1) + begin
        later = torch.where(places[1] < begin + pads, -1, places[1] - pads)
        for second in (later, places[1]):
            got, after = model(ids, state, torch.stack([places[0], second]))
            for row, skipped in ((0, 0), (1, int((second < 0).sum()))):
                alone, own = model(ids[row : row + 1, skipped:], state.select([row]))
                assert_close(got[row, skipped:], alone[0])
                assert_states_close(after.select([row]), own)
