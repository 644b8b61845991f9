"""Whole runs over a toy model: what is measured, and what a run gives up."""

from __future__ import annotations

import pytest

from griffin.bench import suites
from griffin.bench.measurement import Report
from griffin.bench.run import Bench, Plan, product_of


def plan(folder, **changes) -> Plan:
    fields = {
        "model": str(folder),
        "threads": 1,
        "rounds": 2,
        "tokens": 3,
        "buffer": 1 << 22,
        "probe": 0.01,
    }
    report = Report(command="", commit=None, machine={})
    return Plan(report=report, chunk=16, **fields | changes)


def test_context_and_memory_of_ours_and_a_rival_that_is_given_up(folder, here):
    pytest.importorskip("transformers")
    run = plan(folder, against=["transformers"])
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
        assert m.ratio == pytest.approx(m.tokens_per_second / m.limit_tokens_per_second)
    decoded = [m for m in run.report.measurements if m.what == "decode"]
    assert all(len(m.samples) == 2 for m in decoded)


def bench_of(stream) -> Bench:
    return stream.gi_frame.f_locals["bench"]


def test_load_goes_on_from_a_saved_state(folder, here):
    run = plan(folder, rounds=1)
    found = {m.what: m for m in suites.load(run, 8)}
    assert list(found) == ["load", "load, first token", "resume", "resume, first token"]
    assert found["load"].tokens_per_second is None and found["load"].seconds > 0
    assert found["load, first token"].seconds > found["load"].seconds
    assert found["resume, first token"].seconds > found["resume"].seconds
    assert found["resume, first token"].bytes_per_token > found["load, first token"].bytes_per_token
    assert list(found.values()) == run.report.measurements


def test_a_rival_without_the_format_is_refused_before_anything_is_timed(folder, here, tmp_path):
    run = plan(folder, against=["llama.cpp"], gguf=tmp_path)
    with pytest.raises(
        ValueError, match=r"llama.cpp has none of the formats float32; choose --format"
    ):
        list(suites.decode(run, [4]))
    assert not run.report.measurements


def test_which_product_bounds_a_format():
    names = ("float32", "bf16", "bf16-packed", "int8", "int4")
    assert [product_of(name) for name in names] == [
        "float32",
        "bfloat16",
        "bfloat16",
        "int8",
        "int8",
    ]
