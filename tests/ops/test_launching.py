"""Launches of Triton kernels: counted, without a GPU, chosen by device and type and never tried."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode

from griffin import ops
from griffin.model import GriffinConfig
from griffin.model.step_kernels import why_no_kernels
from griffin.ops import dispatch, launching
from griffin.ops.launching import launch, record
from tests.support.triton import interpreted

__all__ = ["interpreted"]


def scan(device: str = "cpu", width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.ones(1, 3, width, device=device)
    with ops.use("triton"):
        return ops.linear_scan(x, x / 2)


def test_launches_are_recorded_where_there_are_values_and_where_there_are_none(interpreted):
    with record() as real:
        h, last = scan()
    assert h[0, :, 0].tolist() == [1, 1.5, 1.75] and last[0, 0] == 1.75
    with record() as outer, record() as inner:
        scan("meta")
    assert outer == inner == real
    with record() as fake, FakeTensorMode():
        x = torch.ones(1, 3, 8).requires_grad_()
        with ops.use("triton"):
            h, last = ops.linear_scan(x, x / 2)
            (h.sum() + last.sum()).backward()
        assert h.shape == x.shape and x.grad.shape == x.shape
    assert fake[:3] == real
    names = ["_scan_ends", "fold_ends", "_scan_out"]
    assert [each.name for each in fake] == [*names, "_gradient_ends", "fold_ends", "_scan_gradient"]


def test_a_launch_says_what_it_moves(interpreted):
    with record() as launches:
        scan()
    values, chunk = 3 * 8 * 4, 8 * 4
    assert [each.moved for each in launches] == [
        2 * values + 2 * chunk,  # x, a; decay, end
        5 * chunk,  # decay, end, h0; carry, last
        3 * values + chunk,  # x, a, h; carry
    ]


def test_a_compiled_kernel_is_refused_on_the_cpu():
    from triton.runtime import JITFunction

    def kernel(x):
        pass

    with pytest.raises(ValueError, match=r"runs on a CUDA device.*TRITON_INTERPRET=1"):
        launch(JITFunction(kernel), (1,), torch.ones(1))


def test_types_that_the_kernels_lack_are_named(interpreted):
    x = torch.ones(1, 3, 8, dtype=torch.float64)
    with ops.use("triton"), pytest.raises(ValueError, match="float32 and bfloat16, not"):
        ops.linear_scan(x, x)


@pytest.mark.parametrize(
    ("device", "dtype", "ready", "chosen"),
    [
        ("cuda", torch.bfloat16, True, "triton"),
        ("cuda", torch.float32, True, "triton"),
        ("cuda", torch.float16, True, "eager"),
        ("cuda", torch.float64, True, "eager"),
        ("cuda", torch.bfloat16, False, "eager"),
        ("mps", torch.bfloat16, True, "eager"),
    ],
)
def test_triton_is_chosen_by_device_and_type(device, dtype, ready, chosen, monkeypatch):
    monkeypatch.setattr(launching, "ready", lambda number: ready)
    assert dispatch._choose("linear_scan", device, dtype) == chosen
    assert dispatch._choose("linear_scan", "cpu", dtype) != "triton"


@pytest.mark.parametrize(
    ("version", "capability", "reason"),
    [
        ("3.5.1", (9, 0), "triton 3.5.1 has not been tried (3.6 to 3.9 have)"),
        ("4.0.0", (9, 0), "triton 4.0.0 has not been tried (3.6 to 3.9 have)"),
        ("3.6.0", (7, 5), "the GPU is of capability 7.5, and kernels need 8.0"),
        ("3.6.0", None, "there is no CUDA device"),
        ("3.9.0", (12, 0), None),
    ],
)
def test_why_kernels_are_not_chosen_is_said(version, capability, reason, monkeypatch):
    monkeypatch.setattr(launching, "version", lambda _: version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert launching.why_not() == reason


def test_each_gpu_is_asked_for_itself(monkeypatch):
    """An old GPU beside a new one runs torch's operations, whichever of them is current."""
    new, old = (9, 0), (7, 5)
    monkeypatch.setattr(launching, "version", lambda _: "3.6.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda n: old if n == 1 else new)
    launching.ready.cache_clear()
    chosen = [dispatch._choose("rg_lru", "cuda", torch.bfloat16, n) for n in (None, 0, 1)]
    launching.ready.cache_clear()
    assert chosen == ["triton", "triton", "eager"]
    assert launching.why_not(1) == "the GPU is of capability 7.5, and kernels need 8.0"
    assert launching.why_not(9) == "there is no CUDA device 9"
    config = GriffinConfig.preset("recurrentgemma-2b")
    said = [why_no_kernels(config, torch.bfloat16, f"cuda:{number}") for number in (0, 1)]
    assert said == [None, launching.why_not(1)]


def test_without_triton_it_is_said(monkeypatch):
    def missing(_: str) -> str:
        raise launching.PackageNotFoundError

    monkeypatch.setattr(launching, "version", missing)
    assert launching.why_not() == "triton is not installed"
    assert "triton is not installed" in ops.describe()["kernels on a GPU"]
