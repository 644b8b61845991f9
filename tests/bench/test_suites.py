"""Whole runs over a toy model: what is measured, and what a run gives up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from griffin.bench import suites
from griffin.bench.measurement import Report
from griffin.bench.program import OURS, Contender
from griffin.bench.run import Bench, Plan, products_of


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


def another(**changes) -> Contender:
    """Return our own program under another's name."""
    return dataclasses.replace(OURS, name="another", **changes)


def test_another_program_takes_turns_and_may_be_given_up(folder, here, tmp_path):
    other = another(formats=("int8",), otherwise="bf16", root=tmp_path)
    run = plan(folder, against=[other])
    stream = suites.context(run, [40, 20])
    found = [next(stream) for _ in range(4)]
    assert [(m.program, m.format, m.what, m.context) for m in found] == [
        ("griffin", "float32", "prefill", 20),
        ("griffin", "float32", "decode", 20),
        ("another", "bf16", "prefill", 20),
        ("another", "bf16", "decode", 20),
    ]
    runners: list[Any] = bench_of(stream).runners
    assert [runner.worker.root for runner in runners] == [None, tmp_path]
    for runner in runners:
        runner.patience = None if runner.program == "griffin" else 1e-9
    assert [m.program for m in stream] == ["griffin", "griffin"]
    (said,) = run.report.notes
    assert said.startswith("another was stopped: read took longer")


def test_another_program_loads_what_it_is_given_instead_of_the_checkpoint(folder, here):
    asked = []

    def weights(format: str) -> str:
        asked.append(format)
        return "/nowhere/at/all"

    with pytest.raises(ValueError, match="/nowhere/at/all"):
        list(suites.decode(plan(folder, against=[another(weights=weights)]), [4]))
    assert asked == ["float32"]


def test_formats_beside_ours_are_those_that_both_have():
    two = another(formats=("bf16", "int8"))
    assert two.formats_beside(["int8", "bf16-packed", "bf16"]) == ["int8", "bf16"]
    with pytest.raises(ValueError, match="another has none of the formats int4; choose --format"):
        two.formats_beside(["int4"])
    assert dataclasses.replace(two, otherwise="bf16").formats_beside(["int4"]) == ["bf16"]


def bench_of(stream) -> Bench:
    return stream.gi_frame.f_locals["bench"]


def test_load_goes_on_from_a_saved_state(folder, here):
    run = plan(folder, rounds=1)
    found: dict[str, Any] = {m.what: m for m in suites.load(run, 8)}
    assert list(found) == ["load", "load, first token", "resume", "resume, first token"]
    assert found["load"].tokens_per_second is None and found["load"].seconds > 0
    assert found["load, first token"].seconds > found["load"].seconds
    assert found["resume, first token"].seconds > found["resume"].seconds
    assert found["resume, first token"].bytes_per_token > found["load, first token"].bytes_per_token
    assert list(found.values()) == run.report.measurements


def test_which_products_serve_a_format():
    names = ("float32", "bf16", "bf16-packed", "int8", "int4")
    assert [products_of(name) for name in names] == [
        ("float32",),
        ("bfloat16", "float32"),
        ("bfloat16", "float32"),
        ("int8", "bfloat16", "float32"),
        ("int8", "bfloat16", "float32"),
    ]


@pytest.mark.parametrize("fast", ["bfloat16", "float32"])
def test_the_fastest_product_that_serves_bounds_a_format(folder, here, monkeypatch, fast):
    """A machine without instructions for bfloat16 is not held to its slow product."""
    asked: list[tuple[int, str]] = []

    def matrix_rate(self: Bench, rows: int, dtype: str) -> float:
        asked.append((rows, dtype))
        rate = 4e12 if dtype == fast else 1e10
        self._rates.setdefault(f"{dtype} product, {rows} rows", []).append(rate)
        return rate

    monkeypatch.setattr(Bench, "matrix_rate", matrix_rate)
    run = dataclasses.replace(plan(folder, formats=["bf16"]), chunk=80)
    (found,) = suites.prefill(run, [100])
    assert found.operations_per_second == 4e12
    assert asked == [(64, "bfloat16"), (64, "float32"), (80, fast), (80, fast)]
