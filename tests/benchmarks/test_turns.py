"""Whole runs of ours and a rival over a toy model: turns, and what a run gives up."""

from __future__ import annotations

import pytest

from benchmarks.rivals import RIVALS, llama_cpp
from griffin.bench import suites
from tests.bench.test_suites import bench_of, plan


def test_context_and_memory_of_ours_and_a_rival_that_is_given_up(folder, here):
    pytest.importorskip("transformers")
    run = plan(folder, against=[RIVALS["transformers"]])
    stream = suites.context(run, [20, 40])
    found = [next(stream) for _ in range(4)]
    assert [(m.program, m.what, m.context) for m in found] == [
        ("griffin", "prefill", 20),
        ("griffin", "decode", 20),
        ("transformers", "prefill", 20),
        ("transformers", "decode", 20),
    ]
    for runner in bench_of(stream).runners:
        runner.patience = None if runner.program == "griffin" else 1e-9
    found = list(stream)
    assert [(m.program, m.what, m.context) for m in found] == [
        ("griffin", "prefill", 40),
        ("griffin", "decode", 40),
    ]
    assert len(run.report.notes) == 1 and "transformers was stopped" in run.report.notes[0]
    assert run.report.measurements[-2:] == found and run.report.rates["read, 1 threads"] > 0
    for m in run.report.measurements:
        assert (
            m.resident_bytes
            and m.peak_resident_bytes
            and m.peak_resident_bytes >= m.resident_bytes // 2
        )
        assert m.tokens_per_second and m.limit_tokens_per_second
        assert m.ratio == pytest.approx(m.tokens_per_second / m.limit_tokens_per_second)
    decoded = [m for m in run.report.measurements if m.what == "decode"]
    assert all(len(m.samples) == 2 for m in decoded)


def test_a_rival_without_the_format_is_refused_before_anything_is_timed(folder, here, tmp_path):
    run = plan(folder, against=[llama_cpp(tmp_path, "gemma-2b")])
    with pytest.raises(
        ValueError, match=r"llama.cpp has none of the formats float32; choose --format"
    ):
        list(suites.decode(run, [4]))
    assert not run.report.measurements
    assert not list(tmp_path.iterdir())
