"""Several tokens of each row in one call: what they give, and the way back to each of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.model import PRESETS, Griffin, State, Trail
from griffin.ops import native
from griffin.quant import FORMATS, quantize_model
from tests.support.toy_folder import CONFIG
from tests.support.toy_models import make_model, make_tokens

TOY = CONFIG.replace(width=64, lru_width=64, attention_window_size=24)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def tensors(state: State) -> list[Tensor]:
    return [state.pos, *(t for layer in state.layers for t in layer)]


def begun(model: Griffin, reads: list[int]) -> State:
    """Return a state of rows that have read so many tokens."""
    rows = [model.trunk(make_tokens(model.config, 1, n, seed=n))[1] for n in reads]
    return State.cat(rows)


def one_by_one(model: Griffin, ids: list[int], state: State) -> Iterator[tuple[Tensor, State]]:
    for id in ids:
        hidden, state = model.trunk(torch.tensor([[id]]), state)
        yield hidden[0, 0], state


def equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two are the same; of float64, but for rounding."""
    if one.dtype == torch.float64:
        return torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    return torch.equal(one, other)


def check(model: Griffin, lengths: list[int], seed: int) -> None:
    """Hold a call against the same tokens read one by one, and every way back."""
    draw = random.Random(seed)
    reads = [draw.choice([1, 2, 7, 23, 24, 25, 40]) for _ in lengths]
    state = begun(model, reads)
    ids = [[draw.randrange(model.config.vocab_size) for _ in range(n)] for n in lengths]
    alone = [list(one_by_one(model, mine, state.select([row]))) for row, mine in enumerate(ids)]
    flat = torch.tensor([id for mine in ids for id in mine])
    hidden, after, trail = model.trunk_with_trail(flat, lengths, state)
    want = torch.stack([h for row in alone for h, _ in row])
    assert equal(hidden, want)
    assert isinstance(trail, Trail)
    for row, length in enumerate(lengths):
        for read in range(1, length + 1):
            back = after.select([row])
            trail.go_back(back, row, read)
            assert all(map(equal, tensors(back), tensors(alone[row][read - 1][1])))
    with pytest.raises(RuntimeError, match="donated"):
        _ = state.layers


RAGGED = ([1], [5], [3, 3, 3], [1, 4, 4, 2, 1, 24], [2, 1, 1, 6, 6, 3, 16, 1])


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_native_call_equals_token_after_token(format: str, dtype: torch.dtype) -> None:
    model = quantize_model(make_model(TOY).to(dtype), format)
    for seed, lengths in enumerate(RAGGED):
        check(model, lengths, seed)
    assert model._fast is not None


@pytest.mark.parametrize("name", ["reference", "eager", "native"])
def test_so_does_every_implementation_of_the_ops(name: str) -> None:
    if name == "native" and not native.built():
        pytest.skip("the native kernels are not built")
    # Only native products have the same bits in any company; of other rounding little is left.
    model = make_model(TOY) if name == "native" else make_model(TOY).double()
    with ops.use(name):
        for seed, lengths in enumerate(RAGGED[:4]):
            check(model, lengths, seed)


@pytest.mark.parametrize(
    "changes",
    [
        {"conv_width": 1},
        {"conv_width": 2},
        {"conv_width": 6},
        {"block_types": ("recurrent",) * 2},
        {"block_types": ("attention",) * 2},
    ],
)
def test_whatever_the_model_is_made_of(changes: dict[str, object]) -> None:
    plain = make_model(TOY.replace(**changes))
    check(plain, [4, 1, 7], 1)
    if native.built():
        check(quantize_model(make_model(TOY.replace(**changes)), "int8"), [4, 1, 7], 1)


def test_lengths_that_do_not_fit_are_refused_before_anything_is_read() -> None:
    model = make_model(TOY)
    state = begun(model, [3, 4])
    before = [t.clone() for t in tensors(state)]
    for tokens, lengths in ((5, [2, 2]), (4, [4, 0]), (26, [25, 1]), (2, [2]), (3, [1, 1, 1])):
        with pytest.raises(ValueError, match=r"lengths|rows"):
            model.trunk_with_trail(torch.zeros(tokens, dtype=torch.int64), lengths, state)
    assert all(map(torch.equal, before, tensors(state)))
    _, after, trail = model.trunk_with_trail(torch.tensor([1, 2, 3]), [2, 1], state)
    for read in (0, 3):
        with pytest.raises(ValueError, match="read is"):
            trail.go_back(after.select([0]), 0, read)


def test_fifteen_drafts_of_a_2b_are_kept_in_4_5_mb() -> None:
    trail = Trail(PRESETS["recurrentgemma-2b"], [16], [3000], torch.bfloat16, "meta")
    assert trail.nbytes == 4_454_400
    assert Trail(PRESETS["recurrentgemma-2b"], [1], [0], torch.bfloat16, "meta").nbytes == 0
