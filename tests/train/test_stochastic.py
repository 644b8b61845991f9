"""Rounding by lot: fair, of indices alone, and enough to train bfloat16 weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from griffin.checkpoints import load_model
from griffin.train.export_run import export_run
from griffin.train.loop import Trainer
from griffin.train.recipe import TrainRecipe
from griffin.train.stochastic import StochasticAdamW, random_bits, round_by_lot, rounding_key

_MILLION = 1_000_000
_LARGEST = float(torch.finfo(torch.bfloat16).max)


def _rounded(value: float, count: int = _MILLION) -> Tensor:
    bits = random_bits(rounding_key(0, 1, "w"), 0, count)
    return round_by_lot(torch.full((count,), value, dtype=torch.float32), bits).double()


@pytest.mark.parametrize(
    "value", [1.001, -1.001, 0.3333, -7.77e-5, 1.2345e30, -3.3e-39, 5e-40, 1.0000001]
)
def test_the_mean_of_a_million_roundings_is_the_value(value: float) -> None:
    """Subnormal numbers and negative ones too; each rounding is one of the two neighbours."""
    held = float(torch.tensor(value, dtype=torch.float32).double())
    found = _rounded(value)
    low, high = float(found.min()), float(found.max())
    assert low < held < high
    pattern = torch.tensor([low, high]).bfloat16().view(torch.int16)
    assert abs(int(pattern[0]) - int(pattern[1])) == 1
    share = (held - low) / (high - low)
    deviation = (high - low) * math.sqrt(share * (1 - share) / _MILLION)
    assert abs(float(found.mean()) - held) < 4.5 * deviation


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, 1e-40, _LARGEST, -_LARGEST])
def test_what_is_a_bfloat16_number_stays(value: float) -> None:
    held = torch.tensor(value).bfloat16()
    found = _rounded(float(held), 10_000).bfloat16()
    assert torch.equal(found.view(torch.int16), held.view(torch.int16).expand(10_000))


def test_none_becomes_infinite() -> None:
    """float32 reaches further than bfloat16, and halfway there nearest rounding gives inf."""
    beyond = float(torch.finfo(torch.float32).max)
    assert torch.tensor(beyond).bfloat16().isinf()
    assert (_rounded(beyond, 10_000) == _LARGEST).all()
    assert (_rounded(-beyond, 10_000) == -_LARGEST).all()
    assert _rounded(math.nan, 10_000).isnan().all()


def test_bits_are_uniform_and_of_the_index_alone() -> None:
    key = rounding_key(3, 7, "model.embed_tokens.weight")
    whole = random_bits(key, 0, 100_000)
    counts = torch.bincount(whole >> 8, minlength=256).double()
    expected = 100_000 / 256
    assert float(((counts - expected) ** 2 / expected).sum()) < 340  # chi-squared, 255: p = 3e-4
    low = torch.bincount(whole & 255, minlength=256).double()
    assert float(((low - expected) ** 2 / expected).sum()) < 340
    for first, count in ((0, 1), (1, 1), (3, 6), (99_990, 10), (12_345, 6_789)):
        assert torch.equal(random_bits(key, first, count), whole[first : first + count])
    for other in (rounding_key(4, 7, "w"), rounding_key(3, 8, "w"), rounding_key(3, 7, "x")):
        assert (random_bits(other, 0, 1000) == whole[:1000]).double().mean() < 0.01
    assert random_bits(key, 0, 4).tolist() == [35206, 2696, 1978, 54777]  # on every machine


def _optimizer(named: list[tuple[str, nn.Parameter]], rate: float = 1e-5) -> StochasticAdamW:
    groups = [{"params": named, "weight_decay": 0.0}]
    return StochasticAdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8, seed=5)


def test_weights_move_where_rounding_to_the_nearest_leaves_them() -> None:
    """Ten steps of 1e-5 in one direction: on average they arrive, and by nearest almost none."""
    random = torch.Generator().manual_seed(0)
    start = (torch.randn(200_000, generator=random) * 0.02).bfloat16()
    ours, nearest = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    by_lot = _optimizer([("w", ours)])
    plain = torch.optim.AdamW([nearest], lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(10):
        for parameter in (ours, nearest):
            parameter.grad = torch.ones_like(parameter)
        by_lot.step()
        plain.step()
    moved = (start.double() - ours.detach().double()).mean()
    assert float(moved) == pytest.approx(1e-4, rel=0.02)
    assert (nearest == start).double().mean() > 0.8
    assert float((start.double() - nearest.detach().double()).mean()) < 0.5e-4


@contextmanager
def _ranks(rank: int, world: int) -> Iterator[Any]:
    """A device mesh of `world` processes, of which this is one and the others do nothing."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield init_device_mesh("cpu", (world,))
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(("rank", "rows"), [(0, slice(0, 3)), (1, slice(3, 6)), (2, slice(6, 7))])
def test_a_split_tensor_rounds_as_a_whole_one(rank: int, rows: slice) -> None:
    """7 rows on 3 ranks: 3, 3 and 1, each rounded with the bits of its own place."""
    from torch.distributed.tensor import DTensor, Shard

    # torch remembers where a shape's parts lie, for one rank a process; so each has a shape here.
    shape = (7, 64 + 16 * rank)
    random = torch.Generator().manual_seed(0)
    start, slope = (torch.randn(shape, generator=random).bfloat16() for _ in range(2))
    whole = nn.Parameter(start.clone())
    whole.grad = slope.clone()
    _optimizer([("w", whole)], 0.01).step()
    with _ranks(rank, 3) as mesh:

        def split(part: Tensor) -> Tensor:
            return DTensor.from_local(
                part.clone(), mesh, [Shard(0)], run_check=False, shape=shape, stride=(shape[1], 1)
            )

        part = nn.Parameter(split(start[rows]))
        part.grad = split(slope[rows])
        _optimizer([("w", part)], 0.01).step()
        held: Any = part.detach()
        assert torch.equal(held.to_local(), whole.detach()[rows])


def test_bfloat16_weights_learn_and_go_on_bit_for_bit(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    plan: dict[str, Any] = {"weights": "bfloat16", "dtype": "bfloat16", "accumulation": 2}
    straight = trainer("straight", **plan)
    straight.run()
    stopped = trainer("stopped", **plan)
    for _ in range(3):
        stopped.step()
    stopped.save()
    resumed = trainer("stopped", **plan)
    assert resumed.progress.step == 3
    kinds = dict[torch.Tensor, torch.dtype]()

    def look(weight: torch.Tensor) -> None:  # the run keeps no gradient at its end
        assert weight.grad is not None
        kinds[weight] = weight.grad.dtype

    for parameter in resumed.model.parameters():
        parameter.register_post_accumulate_grad_hook(look)
    resumed.run()
    for mine, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert mine.dtype == torch.bfloat16 and torch.equal(mine, theirs)
        state = resumed.optimizer.state[mine]
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.bfloat16
        assert kinds[mine] == torch.bfloat16
    export_run(resumed.out, tmp_path / "model")
    written = load_model(tmp_path / "model").parameters()
    assert all(map(torch.equal, resumed.model.parameters(), written))


def test_they_learn_as_float32_weights_do(trainer: Callable[..., Trainer]) -> None:
    plan: dict[str, Any] = {"steps": 60, "learning_rate": 0.02, "rows": 4, "dtype": "bfloat16"}
    ours, theirs = trainer("ours", weights="bfloat16", **plan), trainer("theirs", **plan)
    last = [[run.step()["loss"] for _ in range(60)][-10:] for run in (ours, theirs)]
    mine, other = (sum(losses) / 10 for losses in last)
    assert mine < 1.1 * other


def test_they_need_products_of_their_kind() -> None:
    with pytest.raises(ValueError, match=r"weights = 'bfloat16' needs train\.dtype"):
        TrainRecipe(steps=1, weights="bfloat16")
