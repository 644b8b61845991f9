"""The model's own contracts: sizes known beforehand, wrong input named, odd inputs answered."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin import ops
from griffin.model import Griffin, GriffinConfig, State
from tests.support.closeness import assert_states_close
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens


@pytest.mark.parametrize(
    ("preset", "nbytes"), [("recurrentgemma-2b", 17_238_016), ("recurrentgemma-9b", 26_230_784)]
)
def test_state_size(preset: str, nbytes: int) -> None:
    state = State.zeros(GriffinConfig.preset(preset), 1, dtype=torch.bfloat16, device="meta")
    assert state.nbytes == nbytes


def test_embedding_scale_is_rounded_to_bfloat16() -> None:
    with torch.device("meta"):
        model = Griffin(GriffinConfig.preset("recurrentgemma-2b"))
    assert model.model.embed_tokens.scale == 50.5


def test_reference_ops_give_the_same_model(toy: Griffin) -> None:
    tokens = make_tokens(toy.config, 2, 40)
    logits, state = toy(tokens)
    with ops.use("reference"):
        expected, slow = toy(tokens)
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5 * expected.std().item())
    assert_states_close(state, slow)


def test_bfloat16_keeps_the_recurrence_in_float32() -> None:
    model = make_model(GRIFFIN, dtype=torch.bfloat16)
    logits, state = model(make_tokens(GRIFFIN, 1, 5))
    assert logits.dtype == torch.float32
    kinds = {
        name: t.dtype
        for layer in state.layers
        for name, t in zip(layer._fields, layer, strict=True)
    }
    assert kinds == {
        "conv": torch.bfloat16,
        "lru": torch.float32,
        "k": torch.bfloat16,
        "v": torch.bfloat16,
    }


@pytest.mark.parametrize("bad", [-1, GRIFFIN.vocab_size])
def test_ids_out_of_range_are_named(bad: int) -> None:
    tokens = make_tokens(GRIFFIN, 2, 5)
    tokens[1, 3] = bad
    with pytest.raises(
        ValueError, match=f"token {bad} at row 1, place 3 is outside the vocabulary of 89"
    ):
        make_model(GRIFFIN)(tokens)


def test_malformed_tokens_are_refused() -> None:
    model = make_model(HAWK)
    for tokens in (
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(1, 0, dtype=torch.int64),
        torch.zeros(1, 3),
    ):
        with pytest.raises(ValueError, match="tokens must be"):
            model(tokens)


def test_state_of_other_batch_or_model_is_refused() -> None:
    model = make_model(GRIFFIN)
    tokens = make_tokens(GRIFFIN, 2, 3)
    for state in (State.zeros(GRIFFIN, 3), State.zeros(HAWK, 2)):
        with pytest.raises(ValueError, match="does not fit"):
            model(tokens, state)
    with pytest.raises(ValueError, match="cannot be joined"):
        State.cat([State.zeros(GRIFFIN, 1), State.zeros(HAWK, 1)])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([1, 2, 3], r"\[0, 0\] is 1"),
        ([0, 1, 3], r"\[0, 2\] is 3"),
        ([0, 1, 1], r"\[0, 2\] is 1"),
        ([-1, 0, -1], r"\[0, 2\] is -1"),
        ([-1, 2, 3], r"\[0, 1\] is 2"),
    ],
)
def test_positions_that_do_not_follow_are_refused(positions: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(HAWK)(make_tokens(HAWK, 1, 3), None, torch.tensor([positions]))


def test_positions_must_go_on_where_the_state_ends() -> None:
    model = make_model(HAWK)
    _, state = model(make_tokens(HAWK, 1, 4))
    model(make_tokens(HAWK, 1, 2), state, torch.tensor([[4, 5]]))
    with pytest.raises(ValueError, match=r"is 5; after what came before only 0 or 4"):
        model(make_tokens(HAWK, 1, 2), state, torch.tensor([[5, 6]]))


def test_a_torn_or_foreign_state_is_refused(tmp_path: Path) -> None:
    _, state = make_model(GRIFFIN)(make_tokens(GRIFFIN, 1, 5))
    path = tmp_path / "state.safetensors"
    state.save(path)
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"state\.safetensors"):
            State.load(path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a griffin state"):
        State.load(path)


def test_a_short_state_is_a_small_file(tmp_path: Path) -> None:
    config = GRIFFIN.replace(attention_window_size=4096)
    _, state = make_model(config)(make_tokens(config, 1, 3))
    state.save(tmp_path / "s")
    assert (tmp_path / "s").stat().st_size < 8192 < state.nbytes


def test_gradients_of_packed_documents_equal_those_of_documents_apart() -> None:
    model = make_model(GRIFFIN, dtype=torch.float64).requires_grad_(True)
    lengths = [1, 20, 4, 30]
    tokens = make_tokens(GRIFFIN, 1, sum(lengths))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = torch.autograd.grad(
        model(tokens, None, positions)[0].square().sum(), list(model.parameters())
    )
    apart = sum(model(piece)[0].square().sum() for piece in tokens.split(lengths, dim=1))
    assert isinstance(apart, torch.Tensor)
    for got, want in zip(packed, torch.autograd.grad(apart, list(model.parameters())), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_million_tokens_take_no_memory() -> None:
    """Resident memory after 1,000,000 tokens is within 1 MB of that after 16,000; logits stay
    finite."""
    import gc
    import resource

    model = make_model(GRIFFIN.replace(attention_window_size=64))
    page = resource.getpagesize()

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    state, size, early = None, 1000, 0
    generator = torch.Generator().manual_seed(3)
    for chunk in range(1000):
        tokens = torch.randint(GRIFFIN.vocab_size, (1, size), generator=generator)
        hidden, state = model.trunk(tokens, state, donate=state is not None)
        if (chunk + 1) * size == 16_000:
            early = resident()
    assert state is not None and int(state.pos) == 1_000_000
    grown = resident() - early
    print(f"\nresident memory grew by {grown / 1e6:.3f} MB from 16,000 to 1,000,000 tokens")
    assert torch.isfinite(model.unembed(hidden[:, -1])).all()
    assert grown <= 1_000_000


def test_who_looks_for_generate_is_told_where_it_is(toy: Griffin) -> None:
    assert not hasattr(toy, "generate") and not hasattr(toy, "chat")
    with pytest.raises(AttributeError, match=r"griffin\.load\(\.\.\.\)\.generate takes a text"):
        _ = toy.generate
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        _ = toy.generat


def test_no_rows_are_no_error(toy: Griffin) -> None:
    tokens = torch.zeros(0, 5, dtype=torch.int64)
    with torch.no_grad():
        logits, state = toy(tokens, segment_pos=torch.zeros_like(tokens))
    assert logits.shape == (0, 5, toy.config.vocab_size) and state.pos.shape == (0,)
    learner = copy.deepcopy(toy).requires_grad_()
    learner.trunk(tokens)[0].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in learner.parameters())


@pytest.mark.parametrize("given", [3, (1, 2), torch.zeros(1)])
def test_what_is_no_state_is_named(toy: Griffin, given: Any) -> None:
    with pytest.raises(ValueError, match=r"a state is what a call of the model returned, .* not "):
        toy(make_tokens(toy.config, 1, 2), given)
