"""What must hold of any Griffin model, whatever its weights: see the docstring of each law."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from griffin.model import Griffin, State
from tests.support.closeness import assert_close, assert_states_close, assert_states_equal, tensors
from tests.support.toy_models import GRIFFIN, make_model, make_tokens

W = GRIFFIN.attention_window_size
LENGTH = 3 * W + 5


def read(model: Griffin, tokens: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, State]:
    state, logits = None, []
    for piece in tokens.split(sizes, dim=1):
        out, state = model(piece, state)
        logits.append(out)
    assert state is not None
    return torch.cat(logits, dim=1), state


def cut(length: int, size: int) -> list[int]:
    return [size] * (length // size) + ([length % size] if length % size else [])


@pytest.mark.parametrize("size", [1, 3, 7, W - 1, W, W + 1, 2 * W, 2 * W + 1])
def test_chunk(toy: Griffin, size: int) -> None:
    """Reading in pieces equals reading at once: logits and state."""
    tokens = make_tokens(toy.config, 2, LENGTH)
    whole, state = toy(tokens)
    logits, pieces = read(toy, tokens, cut(LENGTH, size))
    assert_close(logits, whole)
    assert_states_close(pieces, state)


def test_chunk_of_mixed_sizes(toy: Griffin) -> None:
    """The sizes may change from piece to piece."""
    agree_in_pieces(toy, [1, 2, W + 1, 1, 1, 5, W, LENGTH - 2 * W - 11])


def agree_in_pieces(toy: Griffin, sizes: list[int]) -> None:
    tokens = make_tokens(toy.config, 2, sum(sizes))
    whole, state = toy(tokens)
    logits, pieces = read(toy, tokens, sizes)
    assert_close(logits, whole)
    assert_states_close(pieces, state)


@pytest.mark.parametrize("steps", [1, 2, 5, W + 1, LENGTH])
def test_batch(toy: Griffin, steps: int) -> None:
    """A row alone equals the same row in company."""
    tokens = make_tokens(toy.config, 9, steps)
    logits, state = toy(tokens)
    for row in (0, 4, 8):
        alone, own = toy(tokens[row : row + 1])
        assert_close(alone[0], logits[row])
        assert_states_close(own, state.select([row]))


@pytest.mark.parametrize("resumed", [False, True])
def test_ragged_batch(toy: Griffin, resumed: bool) -> None:
    """Rows of any length, padded on the left, equal the same rows alone: from nothing and from a
    state."""
    agree_in_company(toy, resumed, [1, 2, 3, 4, 5, W - 1, W, W + 1, 2 * W + 3, 0])


def agree_in_company(toy: Griffin, resumed: bool, lengths: list[int]) -> None:
    longest = max(lengths)
    tokens = make_tokens(toy.config, len(lengths), longest)
    before = None
    if resumed:
        earlier = make_tokens(toy.config, len(lengths), W + 3, seed=7)
        starts = [toy(earlier[row : row + 1, : 1 + 2 * row])[1] for row in range(len(lengths))]
        before = State.cat(starts)
    base = torch.zeros(len(lengths), dtype=torch.int64) if before is None else before.pos
    segment_pos = (
        torch.arange(longest).expand(len(lengths), -1) - longest + torch.tensor(lengths)[:, None]
    )
    segment_pos = torch.where(segment_pos < 0, -1, segment_pos + base[:, None])
    logits, state = toy(tokens, before, segment_pos)
    for row, length in enumerate(lengths):
        own = None if before is None else before.select([row])
        if length == 0:
            expected = State.zeros(toy.config) if own is None else own
            assert_states_equal(state.select([row]), expected)
            continue
        alone, after = toy(tokens[row : row + 1, longest - length :], own)
        assert_close(logits[row, longest - length :], alone[0])
        assert_states_close(state.select([row]), after)


@pytest.mark.parametrize("steps", [1, 3, W + 2, LENGTH])
def test_purity(toy: Griffin, steps: int) -> None:
    """A call leaves its input state as it was."""
    _, state = toy(make_tokens(toy.config, 2, W + 3))
    kept = state.clone()
    first, _ = toy(make_tokens(toy.config, 2, steps, seed=3), state)
    assert_states_equal(state, kept)
    again, _ = toy(make_tokens(toy.config, 2, steps, seed=3), state)
    assert torch.equal(first, again)


def test_donated_state_fails_loudly(toy: Griffin) -> None:
    """A state given away is gone, and says what to do."""
    tokens = make_tokens(toy.config, 1, 4)
    _, state = toy(tokens)
    expected, _ = toy(tokens, state)
    given, _ = toy(tokens, state, donate=True)
    assert torch.equal(given, expected)
    with pytest.raises(RuntimeError, match="donated"):
        toy(tokens, state)


DOCUMENTS = [1, 2, W, 3, W + 2, 2]


def pack(tokens: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.arange(n) for n in DOCUMENTS]).expand_as(tokens)


def test_packing(toy: Griffin) -> None:
    """Documents packed into a row equal the documents alone; the state is the last one's."""
    tokens = make_tokens(toy.config, 2, sum(DOCUMENTS))
    logits, state = toy(tokens, None, pack(tokens))
    last = None
    for piece, packed in zip(tokens.split(DOCUMENTS, 1), logits.split(DOCUMENTS, 1), strict=True):
        alone, last = toy(piece)
        assert_close(packed, alone)
    assert last is not None
    assert_states_close(state, last)


def test_packing_after_a_state(toy: Griffin) -> None:
    """A document that starts in the middle of a call forgets the state the call began with."""
    _, before = toy(make_tokens(toy.config, 2, W + 1, seed=5))
    tokens = make_tokens(toy.config, 2, 2 + W)
    segment_pos = torch.cat([torch.arange(W + 1, W + 3), torch.arange(W)]).expand_as(tokens)
    logits, state = toy(tokens, before, segment_pos)
    ahead, _ = toy(tokens[:, :2], before)
    alone, after = toy(tokens[:, 2:])
    assert_close(logits[:, :2], ahead)
    assert_close(logits[:, 2:], alone)
    assert_states_close(state, after)


def test_packing_does_not_leak(toy: Griffin) -> None:
    """Another first document leaves the others bit-equal."""
    tokens = make_tokens(toy.config, 2, sum(DOCUMENTS))
    logits, state = toy(tokens, None, pack(tokens))
    other = tokens.clone()
    other[:, : sum(DOCUMENTS[:3])] = (other[:, : sum(DOCUMENTS[:3])] + 1) % toy.config.vocab_size
    changed, after = toy(other, None, pack(tokens))
    assert not torch.equal(changed[:, 0], logits[:, 0])
    assert torch.equal(changed[:, sum(DOCUMENTS[:3]) :], logits[:, sum(DOCUMENTS[:3]) :])
    assert_states_equal(after, state)


def test_size(toy: Griffin) -> None:
    """The state never grows, and its size is known beforehand."""
    expected = State.zeros(toy.config, 2).nbytes
    state = None
    for size in (1, W - 1, W + 1, LENGTH, 1):
        _, state = toy(make_tokens(toy.config, 2, size), state)
        assert state.nbytes == expected
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors(state)[1:])


@pytest.mark.sweep
@pytest.mark.parametrize("steps", [1, W - 1, LENGTH])
def test_save(toy: Griffin, steps: int, tmp_path: Path) -> None:
    """A state that was saved is bit-equal when it is loaded, in another process too."""
    _, state = toy(make_tokens(toy.config, 2, steps))
    state.save(tmp_path / "a.safetensors")
    assert_states_equal(State.load(tmp_path / "a.safetensors"), state)
    again = "import sys; from griffin.model import State; State.load(sys.argv[1]).save(sys.argv[2])"
    paths = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    subprocess.run([sys.executable, "-c", again, *paths], check=True)
    assert_states_equal(State.load(paths[1]), state)
    assert (tmp_path / "b.safetensors").stat().st_mode & 0o777 == 0o600


def test_rollback(toy: Griffin) -> None:
    """Going back to a kept state and on another way equals never having been elsewhere."""
    tokens = make_tokens(toy.config, 1, 2 * W)
    _, kept = toy(tokens)
    elsewhere, state = make_tokens(toy.config, 1, W + 1, seed=8), kept
    for token in elsewhere.split(1, dim=1):
        _, state = toy(token, state)
    other = make_tokens(toy.config, 1, 5, seed=9)
    back, after = toy(other, kept)
    _, fresh = toy(tokens)
    straight, expected = toy(other, fresh)
    assert torch.equal(back, straight)
    assert_states_equal(after, expected)


def test_fork(toy: Griffin) -> None:
    """Two ways on from one state, taken together, equal each taken alone."""
    _, state = toy(make_tokens(toy.config, 1, W + 3))
    ways = make_tokens(toy.config, 2, 4, seed=4)
    together, after = toy(ways, state.select([0, 0]))
    for row in range(2):
        alone, own = toy(ways[row : row + 1], state)
        assert_close(alone[0], together[row])
        assert_states_close(after.select([row]), own)


@pytest.mark.parametrize("start", [2**24, 2**31 + 3, 2**40 + 1])
def test_positions_stay_exact(start: int) -> None:
    """Only distances count, however far the stream has come: a shift by a multiple of S changes
    nothing."""
    model = make_model(GRIFFIN, dtype=torch.float64)
    _, state = model(make_tokens(GRIFFIN, 1, 2 * W))
    tokens = make_tokens(GRIFFIN, 1, W + 5, seed=2)
    far = start - start % W
    states = []
    for offset in (0, far):
        # The same keys, rotated as if the stream had begun `offset` tokens earlier.
        late = State(state.pos + offset, _rotate(model, state, offset))
        states.append(model(tokens, late))
    worst = (states[0][0] - states[1][0]).abs().max().item()
    assert worst < 1e-15 * far + 1e-12


def _rotate(model: Griffin, state: State, offset: int) -> list:
    from griffin import ops
    from griffin.model import AttentionState

    turn = ops.rope_table(
        torch.full((1, 1), offset), model.config.rope_width, model.config.rope_theta, torch.float64
    )
    return [
        AttentionState(ops.apply_rope(layer.k, turn), layer.v)
        if isinstance(layer, AttentionState)
        else layer
        for layer in state.layers
    ]
