"""`griffin evaluate` of texts, real ones and made up: tables, JSON, pictures, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import griffin
from griffin.cli.evaluate.command import command
from tests.support.toy_adapters import write_adapter
from tests.support.toy_folder import write_toy
from tests.support.toy_states import write_tuned


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return str(write_toy(tmp_path_factory.mktemp("model") / "toy"))


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.py"
    file.write_text("def f(x):\n    return x + 1\n" * 40)
    return file


def run(*arguments: str):
    return CliRunner().invoke(command, [*arguments], catch_exceptions=False)


def test_texts_by_position(toy, text, tmp_path):
    asked = ("--model", toy, "--text", str(text), "--by-position", "--device", "cpu")
    picture = tmp_path / "positions.png"
    found = json.loads(run(*asked, "--json", "--plot", str(picture)).stdout)
    assert picture.read_bytes().startswith(b"\x89PNG")
    score = griffin.load(toy, device="cpu").score(text.read_text())
    nats = sum(span["nats"] for span in found["spans"])
    assert nats == pytest.approx(-sum(score.logprobs), rel=1e-5)
    assert [span["begin"] for span in found["spans"]][:2] == [1, 256]
    table = run(*asked).stdout
    assert "256 to" in table and f"{found['spans'][0]['bits_per_byte']:.4f}" in table
    whole = run("--model", toy, "--text", str(text), "--device", "cpu").stdout
    assert str(text.name) in whole and f"{text.stat().st_size:,}" in whole


def test_texts_are_read_with_an_adapter(toy, text, tmp_path):
    owl, bat = (write_adapter(tmp_path / name, seed=n) for n, name in enumerate(("owl", "bat")))
    asked = ("--model", toy, "--text", str(text), "--by-position", "--device", "cpu", "--json")

    def nats(*more):
        return sum(span["nats"] for span in json.loads(run(*asked, *more).stdout)["spans"])

    score = griffin.load(toy, device="cpu", adapter=owl).score(text.read_text())
    found = nats("--adapter", str(owl))
    assert found == pytest.approx(-sum(score.logprobs), rel=1e-5)
    assert len({round(each, 3) for each in (found, nats(), nats("--adapter", str(bat)))}) == 3
    long = ("--model", toy, "--long", "copy", "--lengths", "80", "--device", "cpu", "--json")
    told = [
        json.loads(run(*long, "--questions", "2", *more).stdout)["results"][0]["nats"]
        for more in ((), ("--adapter", str(owl)))
    ]
    assert told[0] != told[1]
    refused = run("--model", toy, "--held-out", "nano", "--adapter", str(owl))
    assert refused.exit_code == 2 and "griffin merge" in refused.output


def test_texts_are_read_behind_a_tuned_state(toy, text, tmp_path):
    """In both measures of texts, and of one of them as `score` reads it."""
    state = write_tuned(Path(toy), tmp_path / "toy.state", keys=3)
    how = ("--model", toy, "--device", "cpu")
    asked = (*how, "--text", str(text), "--by-position", "--json")
    nats = [
        sum(span["nats"] for span in json.loads(run(*asked, *more).stdout)["spans"])
        for more in ((), ("--state", str(state)))
    ]
    score = griffin.load(toy, device="cpu", state=state).score(text.read_text())
    assert nats[1] == pytest.approx(-sum(score.logprobs), rel=1e-5)
    assert abs(nats[1] - nats[0]) > 1e-3
    long = (*how, "--long", "copy", "--lengths", "80", "--questions", "2", "--json")
    told = [
        json.loads(run(*long, *more).stdout)["results"][0]["nats"]
        for more in ((), ("--state", str(state)))
    ]
    assert told[0] != told[1]


def test_long_texts(toy, tmp_path):
    asked = ("--model", toy, "--long", "induction,recall", "--lengths", "80,1k", "--device", "cpu")
    picture = tmp_path / "recall.png"
    said = run(*asked, "--questions", "2", "--json", "--plot", str(picture))
    results = json.loads(said.stdout)["results"]
    assert [(each["task"], each["tokens"]) for each in results] == [
        ("induction", 80),
        ("induction", 1024),
        ("recall", 80),
        ("recall", 1024),
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = run(*asked, "--questions", "2").stdout
    assert "1,024" in table and "recall" in table and "of 2 questions each" in table


def test_a_model_that_is_refused_is_told_before_lm_eval_is_imported(monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # an import of it fails from here on
    for name in ("harness", "lm_eval"):  # which import it
        monkeypatch.delitem(sys.modules, f"griffin.evaluate.{name}", raising=False)
    with pytest.raises((ValueError, OSError), match="no/such is not in the local cache"):
        run("--tasks", "piqa", "--model", "no/such")


WRONG = {
    "nothing": ((), "say what to measure: --tasks, --text, --long, --held-out"),
    "two": (("--long", "copy", "--tasks", "piqa"), "one measure at a time, not --tasks and --long"),
    "an option of another": (("--long", "copy", "--limit", "3"), "--limit is of --tasks"),
    "a task": (("--long", "needle"), "no task 'needle'; there are niah,"),
    "a length": (("--long", "copy", "--lengths", "1k,x"), "'x' is no length"),
    "windows behind a state": (
        ("--tasks", "piqa", "--windows", "64", "--state", "a.state"),
        "cuts texts into pieces without BOS",
    ),
    "a state": (("--held-out", "nano", "--state", "a.state"), "without --state"),
    "a format": (("--held-out", "nano", "--quantize", "int8"), "without --quantize"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case):
    arguments, said = WRONG[case]
    result = run(*arguments)
    assert result.exit_code == 2 and said in result.output


def test_what_is_no_text_is_refused(toy, tmp_path):
    (tmp_path / "b").write_bytes(b"ab\xff")
    result = run("--model", toy, "--text", str(tmp_path / "b"))
    assert result.exit_code == 2 and "is no UTF-8 text: byte 2" in result.output
    (tmp_path / "e").write_text("")
    result = run("--model", toy, "--text", str(tmp_path / "e"))
    assert result.exit_code == 2 and "there is nothing to read in" in result.output
