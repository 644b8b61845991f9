"""What was measured beside what the paper says: values, differences, notes."""

from __future__ import annotations

from typing import Any

import pytest

from griffin.evaluate.results import refused, table, values_of_row, values_of_task
from griffin.evaluate.suites import SAFETY, TABLE2

FOUND: dict[str, Any] = {
    "results": {
        "openbookqa": {
            "acc,none": 0.25,
            "acc_stderr,none": 0.02,
            "acc_norm,none": 0.42,
            "acc_norm_stderr,none": 0.022,
            "acc_mutual_info,none": 0.5,
            "acc_mutual_info_stderr,none": "N/A",
            "alias": "openbookqa",
        }
    },
    "versions": {"openbookqa": 1.0},
    "n-shot": {"openbookqa": 0},
    "n-samples": {"openbookqa": {"original": 500, "effective": 500}},
    "group_subtasks": {},
}
OBQA = next(row for row in TABLE2 if row.name == "OBQA")


@pytest.mark.parametrize(("size", "paper"), [("2b", 47.2), ("9b", 51.8), ("", None)])
def test_the_papers_value_stands_beside_the_first_metric(size, paper):
    first, second, third = values_of_row(FOUND, OBQA, size)
    assert (first.metric, second.metric, third.metric) == ("acc_norm", "acc", "acc_mutual_info")
    assert (first.value, first.stderr, first.n) == (42.0, 2.1999999999999997, 500)
    assert (first.version, first.shots, first.paper) == ("1.0", 0, paper)
    assert first.difference == (None if paper is None else pytest.approx(42.0 - paper))
    assert first.as_dict()["difference"] == first.difference
    assert (second.paper, second.note, third.stderr) == (None, "", None)
    assert "others found acc_norm 42.0" in first.note


def test_the_table_says_what_differs_and_what_is_not_measured():
    bold = next(row for row in SAFETY if row.name == "BOLD")
    lines = table(
        [*values_of_row(FOUND, OBQA, "2b"), refused("BOLD", bold.refused, bold)]
    ).splitlines()
    assert lines[0].split()[-2:] == ["paper", "difference"]
    assert lines[1].split()[:2] == ["OBQA", "[1]"] and lines[1].split()[-2:] == ["47.2", "-5.2"]
    assert "42.0" in lines[1] and "500" in lines[1]
    assert "not measured: lm-eval 0.4.13 has no such task" in lines[4]
    assert lines[5] == f"[1] {OBQA.note}"


def test_a_task_by_its_own_name_has_all_its_metrics_as_they_are():
    values = {value.metric: value for value in values_of_task(FOUND)}
    assert values.keys() == {"acc", "acc_norm", "acc_mutual_info"}
    assert values["acc"].value == 0.25 and values["acc"].paper is None
