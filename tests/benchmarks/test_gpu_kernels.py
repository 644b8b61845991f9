"""Rows of single kernels beside libraries': on the CPU, with stand-ins that compute the same."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import benchmarks.gpu_kernels as gpu_kernels
from benchmarks.__main__ import main
from griffin import ops
from griffin.bench.gpu.figure import Waits
from griffin.bench.gpu.scene import Scene


class Layers:
    """gemlite's makers of layers: of float weights in int8, and of values with scales in int4."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        assert device == "cpu" and dtype == torch.bfloat16

    def from_weights(self, weight: Tensor, scales: Any = None, zeros: Any = None) -> Any:
        if scales is None:
            scale = weight.float().abs().amax(1, keepdim=True) / 127
            matrix = (weight / scale).round() * scale
        else:
            groups = weight.unflatten(1, (scales.shape[1], -1)).float()
            matrix = ((groups - zeros[:, :, None]) * scales[:, :, None]).flatten(1)
        return lambda x: x.float() @ matrix.T


def hgrn(x: Tensor, g: Tensor, initial_state: Tensor, output_final_state: bool) -> Any:
    with ops.use("reference"):
        return ops.linear_scan(x, g.exp(), initial_state)


def varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """Flash attention of one sequence: the last query sees the last key."""
    assert cu_seq_q.tolist() == [0, max_q] and cu_seq_k.tolist() == [0, max_k] and enable_gqa
    assert cu_seq_q.dtype == torch.int32 and window_size[1] == 0
    back = torch.arange(max_k - max_q, max_k)[:, None] - torch.arange(max_k)
    seen = (back >= 0) & (back <= window_size[0])
    groups = query.shape[1] // key.shape[1]
    q, k, v = (t.transpose(0, 1).float() for t in (query, key, value))
    k, v = (t.repeat_interleave(groups, 0) for t in (k, v))
    score = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).masked_fill(~seen, -torch.inf)
    return (score.softmax(2) @ v).transpose(0, 1)


LIBRARIES = {
    "gemlite.helper": SimpleNamespace(A16W8_INT8=Layers, A16W4_HQQ_INT=Layers),
    "fla.ops.hgrn": SimpleNamespace(chunk_hgrn=hgrn),
    "torch.nn.attention.varlen": SimpleNamespace(varlen_attn=varlen),
}


@pytest.mark.parametrize("row", gpu_kernels.ROWS, ids=lambda row: row.name)
def test_both_compute_the_same(row, monkeypatch):
    """Windows, orders of keys and packed formats are the libraries' too, or they would differ."""
    monkeypatch.setattr(gpu_kernels, "library", lambda scene, name, package: LIBRARIES[name])
    scene = Scene(True)
    scene.small = scene.small.replace(width=64, mlp_width=96)  # whole groups of 32
    figures = list(row.run(scene))
    assert figures and len(figures) % 2 == 0
    assert all(figure.value > 0 and figure.detail["differ"] < 1e-2 for figure in figures)
    assert {figure.unit for figure in figures} == {"s", "x"}


def test_a_torch_without_grouped_heads_is_said(monkeypatch):
    old = SimpleNamespace(varlen_attn=lambda query, key, value, window_size: None)
    monkeypatch.setattr(gpu_kernels, "library", lambda *_: old)
    with pytest.raises(Waits, match="takes no enable_gqa"):
        next(gpu_kernels.attention(Scene(True)))


def test_what_is_not_installed_is_a_line(tmp_path):
    scene = Scene(True)
    with pytest.raises(Waits, match="gemlite runs on a GPU"):
        gpu_kernels.library(scene, "gemlite", "gemlite")
    scene.device = torch.device("cuda")
    with pytest.raises(Waits, match=r"fla is not here .* as a wheel"):
        gpu_kernels.library(scene, "no_such_module", "fla")
    out, names = tmp_path / "rows.json", [row.name for row in gpu_kernels.ROWS]
    asked = ["gpu", "--dry-run", "--out", str(out), "--only", ",".join(names)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["rows"]
    assert [(row["row"], row["outcome"]) for row in rows] == [(name, "waits") for name in names]
