"""The paper's suites on made-up data: every task and metric is there, and all of it runs."""

from __future__ import annotations

import importlib.util

import pytest

import griffin
from griffin.evaluate import harness
from griffin.evaluate.harness import Harness
from griffin.evaluate.lm_eval import GriffinLM
from griffin.evaluate.results import table
from griffin.evaluate.run import count, measure, total
from griffin.evaluate.suites import SAFETY, SUITES, TABLE2, size_of
from griffin.model import GriffinConfig

ROWS = [row for row in (*TABLE2, *SAFETY) if row.task]
MATH = importlib.util.find_spec("math_verify") is None  # lm-eval's own extra "math"


def tasks_of(manager, row):
    if row.task == "minerva_math" and MATH:
        pytest.skip("lm-eval's extra math is not installed")
    with harness.mended(run_code=True):
        return list(manager.load([row.task])["tasks"].values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.task)
def test_every_task_has_the_metrics_that_are_named(made_up, row):
    tasks = tasks_of(made_up, row)
    assert tasks
    for name in row.metrics:
        metric, _, filter = name.partition(",")
        # HumanEval's function gives several rates, each by its own name.
        names = {"pass_at_k"} if metric.startswith("pass@") else {metric}
        having = [
            task
            for task in tasks
            if names
            & {
                m["metric"] if isinstance(m["metric"], str) else m["metric"].__name__
                for m in task.config.metric_list
            }
        ]
        assert having, name
        for task in having:
            filters = [each["name"] for each in task.config.filter_list or [{"name": "none"}]]
            assert filter in filters, name


def test_the_papers_models_are_known_by_their_shape():
    assert size_of(GriffinConfig.preset("recurrentgemma-2b")) == "2b"
    assert size_of(GriffinConfig.preset("recurrentgemma-9b"), talks=True) == "9b-it"
    assert all(row.paper["2b"] and row.paper["9b"] for row in TABLE2)
    assert len({row.name for row in TABLE2}) == 18


def run(llm, name, limit):
    lm = GriffinLM(llm)
    values = [
        v for part in measure(Harness(lm, limit=limit, run_code=True), [name], None) for v in part
    ]
    return lm, values


def check(lm, values, name, limit):
    missing = {"minerva_math"} if MATH else set()
    measured = {value.task for value in values if value.value is not None}
    wanted = {row.task for row in SUITES[name] if row.task} - {"realtoxicityprompts"} - missing
    assert measured == wanted, [value for value in values if value.refused]
    assert all(value.n % limit == 0 for value in values if value.value is not None and limit < 4)
    refused = {value.name: value.refused for value in values if value.refused}
    if name == "safety":
        assert (
            "PERSPECTIVE_API_KEY" in refused["RealToxicity"] and "no such task" in refused["BOLD"]
        )
    assert 0 < lm.read < lm.asked
    shown = table(values)
    assert all(row.name in shown for row in SUITES[name])


@pytest.mark.thorough
@pytest.mark.parametrize("name", SUITES)
def test_suites_run_to_their_end(made_up, llm, name):
    check(*run(llm, name, 1), name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("model", ["toy", "nano"])
def test_suites_run_on_all_rows(made_up, llm, name, model):
    check(*run(llm if model == "toy" else griffin.load("nano"), name, 10), name, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_suites_run_at_true_size(made_up, random_2b, monkeypatch, name):
    """All but BBH and MMLU: on made-up rows too they have 80,000 tokens to read and 28,000 to
    write, hours of such a model where a processor reads forty a second."""
    left = {"bbh_cot_fewshot", "mmlu"}
    rows = tuple(row for row in SUITES[name] if row.task not in left)
    monkeypatch.setitem(SUITES, name, rows)
    check(*run(random_2b, name, 1), name, 1)


def test_the_plan_counts_what_is_read(made_up, llm):
    asked = Harness(GriffinLM(llm), limit=3)
    lm = GriffinLM(llm)
    for part in measure(Harness(lm, limit=3), ["arc_easy", "nq_open"], 2):
        assert all(value.shots == 2 and value.n == 3 for value in part)
    parts = list(count(asked, ["arc_easy", "nq_open"], 2))
    whole = total(parts)
    assert (whole.asked, whole.read) == (lm.asked, lm.read)
    assert lm.written <= whole.written == 3 * 256
    assert asked.lm.asked == 0, "the model was not asked"


def test_what_is_missing_is_one_line_that_names_it(made_up, llm, monkeypatch):
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    parts = list(measure(Harness(GriffinLM(llm), limit=1), ["sciq", "humaneval"], None))
    assert [value.value for part in parts for value in part] == [None, None]
    assert "the data set allenai/sciq cannot be had: " in parts[0][0].refused
    assert "--run-code" in parts[1][0].refused
    with pytest.raises(ValueError, match="no task 'owls_of_mars'"):
        list(measure(Harness(GriffinLM(llm)), ["owls_of_mars"], None))
