"""`python -m benchmarks attention`: window attention beside torch's causal one."""

from __future__ import annotations

import re

import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.attention import causal, windowed


def test_both_are_one_within_the_window() -> None:
    """What is compared: the same numbers as long as a row is no longer than the window."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 40, n, 16, generator=generator) for n in (4, 1, 1))
    theirs = causal(q, k, v)
    torch.testing.assert_close(windowed(40)(q, k, v), theirs, rtol=0, atol=1e-5)
    shorter = windowed(8)(q, k, v)
    torch.testing.assert_close(shorter[:, :9], theirs[:, :9], rtol=0, atol=1e-5)
    assert not torch.isclose(shorter[:, 9:], theirs[:, 9:]).all(-1).any()


def test_a_line_for_each_length() -> None:
    sizes = ("--length", "16", "--length", "32", "--tokens", "64", "--heads", "2", "--width", "8")
    done = CliRunner().invoke(main, ["attention", *sizes, "--rounds", "1", "--threads", "1"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["4 x 16 tokens", "2 x 32 tokens"]
    for line in lines:
        times = [float(t) for t in re.findall(r"([\d.]+) (?:\+|ms)", line)]
        assert len(times) == 6
        ratio = float(re.findall(r"([\d.]+) times causal", line)[0])
        # Times are rounded to a tenth of a millisecond.
        low = max(sum(times[4:]) - 0.1, 0) / (sum(times[:2]) + 0.1)
        assert (
            low - 0.01 <= ratio <= (sum(times[4:]) + 0.1) / max(sum(times[:2]) - 0.1, 1e-3) + 0.01
        )
