"""`python -m benchmarks joined`: projections as one product beside one by one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import benchmarks.joined as products
from benchmarks.__main__ import main
from griffin.bench.measurement import Report

SIZES = ("--width", "16", "--head", "4", "--tokens", "8", "--threads", "1", "--rounds", "1")


def test_a_line_for_each_layer(tmp_path: Path) -> None:
    out = tmp_path / "joined.json"
    done = CliRunner().invoke(main, ["joined", *SIZES, "--out", str(out)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    names = ["x, y of 16", "queries, keys, values of 16", "gate, up of 16"]
    assert [line.partition(", float32")[0] for line in lines] == names
    found = Report.open(out).measurements
    assert [m.model for m in found[::2]] == ["16 to 16, 16", "16 to 16, 4, 4", "16 to 48, 48"]
    for line, apart, one in zip(lines, found[::2], found[1::2], strict=True):
        assert apart.seconds and one.seconds and apart.ratio is None
        assert one.ratio == pytest.approx(apart.seconds / one.seconds)
        assert float(re.findall(r"([\d.]+) times", line)[0]) == pytest.approx(one.ratio, abs=6e-4)
    said = CliRunner().invoke(main, ["joined", *SIZES, "--json"]).stdout.splitlines()
    assert [json.loads(line)["what"] for line in said][1] == "x, y of 16, joined"


def test_both_ways_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is one and the same work."""
    grad, found = torch.autograd.grad, list[tuple[torch.Tensor, ...]]()

    def kept(*given: object) -> tuple[torch.Tensor, ...]:
        found.append(grad(*given))  # pyright: ignore
        return found[-1]

    monkeypatch.setattr(torch.autograd, "grad", kept)
    products._seconds(16, (24, 4, 4), 8, torch.float32, 1)
    (dx, *dws), (of_one, dw) = found
    torch.testing.assert_close(of_one, dx, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dw, torch.cat(dws), rtol=1e-4, atol=1e-4)
