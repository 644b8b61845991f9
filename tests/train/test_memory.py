"""What a step keeps for its backward pass, and what it computes again: the same bits in less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from griffin.bench.training import Setting, griffin_learner
from griffin.model import Griffin, GriffinConfig, layers
from griffin.model.config import GRIFFIN_PATTERN, block_pattern
from griffin.ops import native
from griffin.train.objective import Objective
from griffin.train.recipe import TrainRecipe
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharding import shard
from tests.support.living import Living
from tests.train.conftest import MODEL
from tests.train.test_embedding import batch

WIDE = GriffinConfig(
    vocab_size=64,
    width=128,
    mlp_width=384,
    lru_width=128,
    num_heads=2,
    num_gate_blocks=2,
    block_types=block_pattern(6, GRIFFIN_PATTERN),
    attention_window_size=64,
)
LAYER = WIDE.width * 4  # bytes of a float32 activation a token and layer


def kept(keep_every: int, length: int) -> float:
    """Return what the blocks keep for one more token, in activations a layer."""
    learner = griffin_learner(WIDE, "float32", keep_every)
    short, long = (
        learner.kept_bytes(Setting(rows=1, length=n).batch(WIDE.vocab_size))
        for n in (length, 2 * length)
    )
    return (long - short) / length / LAYER / WIDE.num_layers


@pytest.mark.skipif(not native.built(), reason="kernels are not built")
def test_bytes_a_token_are_constant_in_length() -> None:
    short, long = kept(0, 256), kept(0, 1024)
    assert long == pytest.approx(short, rel=0.02)
    assert long < 16
    assert kept(1, 256) < 3 and kept(1, 1024) < 3
    assert kept(3, 256) < kept(1, 256)


def gradients(keep_every: int, dtype: torch.dtype, config: GriffinConfig) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = Griffin(config)
    model.keep_every = keep_every
    ours = Objective(model, dtype)
    state, nats = None, torch.zeros(())
    for number in (10, 20):  # the second rows go on where the first ended
        rows = batch(config.vocab_size, 2, number)
        start = torch.zeros(2, dtype=torch.int64) if state is None else state.pos
        positions = start[:, None] + torch.arange(number)
        positions[0, 7:] = torch.arange(number - 7)  # where another document begins
        nats, state = ours(rows.tokens, rows.targets, positions, rows.mask, state)
        nats.backward()
    return [nats.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_computed_again_has_the_same_bits(dtype: torch.dtype) -> None:
    config = GriffinConfig.from_dict(MODEL | {"block_types": block_pattern(5, GRIFFIN_PATTERN)})
    plain = gradients(0, dtype, config)
    assert len(plain) > 40
    for keep_every in (1, 2, 3, 100):
        again = gradients(keep_every, dtype, config)
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True)), keep_every


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_long_row_goes_through_the_mlp_in_pieces(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less at a time; to rounding the gradients of the row as a whole, and computed again to
    the bit those of the pieces."""
    found, most = list[list[torch.Tensor]](), list[int]()
    rows = Setting(rows=1, length=1000, dtype=dtype).batch(WIDE.vocab_size)
    for together, keep_every in ((1000, 1), (64, 1), (64, 0)):
        monkeypatch.setattr(layers, "TOGETHER", together)
        learner = griffin_learner(WIDE, dtype, keep_every)
        with Living() as living:
            learner.nats(rows).backward()
        most.append(living.most)
        found.append([p.grad for p in learner.model.parameters() if p.grad is not None])
    whole, pieces, kept = found
    assert all(map(torch.equal, pieces, kept))
    for one, other in zip(whole, pieces, strict=True):
        rounding = (1e-5 if dtype == "float32" else 2e-2) * float(one.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=rounding)
    if native.built():  # two gradients of the gate's width for all tokens are not there at once
        width = 2 * WIDE.mlp_width * (4 if dtype == "float32" else 2)
        assert most[0] - most[1] > 0.5 * width * 1000


def test_nothing_is_computed_again_where_nothing_needs_a_gradient() -> None:
    model = Griffin(GriffinConfig.from_dict(MODEL))
    model.keep_every = 1
    calls: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        model(tokens)
    assert calls == [1]
    model(tokens)[0].sum().backward()
    assert calls == [1, 1, 1]  # forward, and once more for the backward pass


@pytest.mark.parametrize(("value", "every"), [("none", 0), ("blocks", 1), (4, 4)])
def test_the_key_of_a_recipe(value: str | int, every: int) -> None:
    assert TrainRecipe(steps=1, checkpoint=value).keep_every == every


@pytest.mark.parametrize("value", ["block", 0, -1, True, 1.5])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"train\.checkpoint must be"):
        TrainRecipe(steps=1, checkpoint=value)  # pyright: ignore[reportArgumentType]


# A block's output that a write would cut off from the backward pass.
@pytest.mark.filterwarnings("error:FSDP2-wrapped module")
def test_under_fully_shard(tmp_path: Path) -> None:
    """Blocks whose weights are gathered when they run are gathered again for the backward pass."""
    config = GriffinConfig.from_dict(MODEL)
    rows = batch(config.vocab_size)
    found = []
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        for keep_every in (0, 1):
            torch.manual_seed(0)
            ours = Objective(Griffin(config))
            ours.griffin.keep_every = keep_every
            shard(ours, Ranks(mesh=init_device_mesh("cpu", (1,))))
            ours(rows.tokens, rows.targets, rows.segment_pos, rows.mask)[0].backward()
            found.append([p.grad.full_tensor() for p in ours.parameters()])  # pyright: ignore
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
