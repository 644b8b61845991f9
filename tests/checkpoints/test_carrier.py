"""Weights on their way to a device: block by block, in two buffers that take turns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from griffin.checkpoints.carrier import Carrier
from tests.support.stand_in_device import DEVICE, stand_in

BLOCK = 64


class _Event:
    """A device's event that says what was asked of it."""

    told: list[str]

    def synchronize(self) -> None:
        self.told.append(f"wait {id(self)}")

    def record(self, stream: str) -> None:
        self.told.append(f"go {id(self)} {stream}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    _Event.told = []
    module = SimpleNamespace(Event=_Event, current_stream=lambda place: f"stream of {place}")
    monkeypatch.setattr(torch, "get_device_module", lambda place: module)
    return _Event.told


def test_on_the_cpu_nothing_is_carried() -> None:
    values = torch.arange(5.0)
    kept = Carrier(torch.device("cpu")).bring(values, torch.float32)
    assert kept.data_ptr() == values.data_ptr()
    assert Carrier(torch.device("cpu")).bring(values, torch.bfloat16).dtype is torch.bfloat16


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (5, 9), (64, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_block_arrives(told, monkeypatch, shape, dtype) -> None:
    """Values are those of a plain conversion; a buffer is written when its last copy is over, on
    the device it goes to, which need not be the current one."""
    place = torch.device("cuda:1")
    empty = torch.empty  # what lies on the device lies here for once
    monkeypatch.setattr(torch, "empty", lambda *size, dtype, **_: empty(*size, dtype=dtype))
    carrier = Carrier(place, BLOCK)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    got = carrier.bring(values, dtype)
    assert torch.equal(got, values.to(dtype))
    assert len(told) == 2 * max(1, -(-values.numel() * dtype.itemsize // BLOCK))
    assert len({line.split()[1] for line in told}) <= 2
    for before, after in zip(told[::2], told[1::2], strict=True):
        assert (before.split()[0], after.split()[0]) == ("wait", "go")
        assert before.split()[1] == after.split()[1]
        assert after.endswith(" stream of cuda:1")


def test_only_buffers_go_across(monkeypatch) -> None:
    """On a device that counts what crosses: a copy for each block, and nothing else."""
    monkeypatch.setattr("griffin.checkpoints.carrier._Lane.__init__", _bare_lane)
    with stand_in() as watch:
        carrier = Carrier(DEVICE, BLOCK)
        with watch.crossing():
            got = carrier.bring(torch.zeros(10, 10), torch.bfloat16)
        assert (got.device, got.dtype) == (DEVICE, torch.bfloat16)
        assert watch.crossed == {"copy_": 4}


def _bare_lane(self, place, block) -> None:
    self._buffer = torch.empty(block, dtype=torch.uint8)
    self._left = SimpleNamespace(synchronize=lambda: None, record=lambda stream: None)
    self._place, self._module = place, SimpleNamespace(current_stream=lambda place: None)
