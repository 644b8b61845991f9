"""Limits, and reports that are written and read again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from griffin.bench.measurement import Measurement, Report, limit, measured

PLACE = {
    "program": "griffin",
    "model": "toy",
    "format": "bf16",
    "threads": 2,
    "batch": 1,
    "context": 512,
}
KEYS = (
    "what model format threads batch context tokens_per_second bytes_per_token"
    " limit_tokens_per_second ratio"
)
OLD = Path(__file__).parents[2] / "docs" / "benchmarks" / "torch-2b.json"


def example(**changes: object) -> Measurement:
    work = {"bytes": 5e9, "operations": 5e9}
    found = measured(
        "decode", PLACE, [4.0, 5.0, 9.0], work, 30e9, 300e9, {"resident": 7, "peak": 8}
    )
    return dataclasses.replace(found, **changes)


def test_the_limit_is_the_slower_of_bytes_and_operations():
    assert limit(5e9, 30e9) == pytest.approx(6)
    assert limit(5e9, 30e9, 1e9, 300e9) == pytest.approx(6)
    assert limit(5e9, 30e9, 100e9, 300e9) == pytest.approx(3)
    assert limit(None, 30e9, 100e9, 300e9) == pytest.approx(3)
    assert limit(5e9, None) is None and limit(0, 30e9) is None


def test_a_measurement_is_the_median_of_its_rounds():
    found = example()
    assert found.tokens_per_second == 5.0 and found.seconds == 0.2
    assert found.limit_tokens_per_second == pytest.approx(6) and found.ratio == pytest.approx(5 / 6)
    assert found.resident_bytes == 7 and found.peak_resident_bytes == 8
    assert set(KEYS.split()) <= set(found.to_dict())


def test_a_report_comes_back_as_it_was_saved(tmp_path):
    report = Report(
        command="griffin bench decode",
        commit="abc",
        machine={"cores": 2},
        rates={"read": 3e10},
        notes=["a rival was stopped"],
        measurements=[example(), example(what="load", tokens_per_second=None, ratio=None)],
    )
    report.save(tmp_path / "report.json")
    assert Report.open(tmp_path / "report.json") == report
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_the_report_from_before_can_still_be_read():
    found = Report.open(OLD).measurements
    assert [(m.what, m.program) for m in found] == [
        ("prefill", "griffin"),
        ("decode", "griffin"),
        ("prefill", "transformers"),
        ("decode", "transformers"),
    ]
    assert found[1].tokens_per_second == pytest.approx(2.617, rel=1e-3) and found[1].ratio is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "no JSON object"),
        ("{", "not a report"),
        ('{"command": "x"}', "lacks commit, machine, measurements"),
        ('{"results": [{}]}', "not a report"),
    ],
)
def test_what_is_no_report_is_named(tmp_path, text, said):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        Report.open(file)
    assert str(file) in str(caught.value)


def test_unknown_and_missing_fields_are_named(tmp_path):
    fields = example().to_dict()
    fields["speed"] = fields.pop("ratio")
    report = {"command": "", "commit": None, "machine": {}, "measurements": [fields]}
    (tmp_path / "r.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="speed, ratio"):
        Report.open(tmp_path / "r.json")
