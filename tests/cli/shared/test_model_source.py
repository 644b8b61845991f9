"""The model options: one decorator, one value."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from types import SimpleNamespace

import click
import pytest
import torch
from click.testing import CliRunner

import griffin
from griffin.cli.shared import progress
from griffin.cli.shared.model_source import ModelSource, model_options, set_threads

LOADED = SimpleNamespace(model=SimpleNamespace(device=torch.device("cpu")))


def parsed(*arguments):
    """Return what a command with the model options is called with."""
    found = []

    @click.command()
    @click.argument("first")
    @model_options
    @click.option("--last", type=int)
    @click.pass_context
    def command(ctx: click.Context, first: str, source: ModelSource, last: int | None) -> None:
        found.append((ctx.info_name, first, source, last))

    result = CliRunner().invoke(command, arguments, prog_name="name", standalone_mode=False)
    assert result.exception is None, result.exception
    return found[0]


def test_the_options_become_one_value_beside_those_of_the_verb():
    assert parsed("x") == ("name", "x", ModelSource(model="nano"), None)
    given = {
        "model": "2b",
        "tokenizer": "t",
        "revision": "r",
        "dtype": "float32",
        "quantize": "int8",
        "screen": True,
        "device": "cpu",
        "adapter": ("a", "b=c/d"),
        "state": "s",
        "threads": 2,
        "no_graphs": True,
    }
    assert set(given) == {field.name for field in fields(ModelSource)}, "every option is tried"
    arguments = [
        f"--{name.replace('_', '-')}" if value is True else f"--{name}={value}"
        for name, values in given.items()
        for value in (values if isinstance(values, tuple) else [values])
    ]
    assert parsed("x", *arguments, "--last=3") == ("name", "x", ModelSource(**given), 3)


def test_every_option_reaches_the_loading(monkeypatch):
    calls = []

    def load(*given, **options):
        calls.append((given, options))
        return LOADED

    monkeypatch.setattr(griffin, "load", load)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: calls.append(count))
    source = ModelSource(
        model="m",
        tokenizer="t",
        revision="r",
        dtype="d",
        quantize="q",
        screen=True,
        device="c",
        threads=3,
        adapter=("a",),
        state="s",
        no_graphs=True,
    )
    assert source.llm() is LOADED
    options = {"tokenizer": "t", "revision": "r", "dtype": "d", "quantize": "q", "device": "c"}
    options |= {"screen": True, "adapter": {"a": "a"}, "state": "s", "graphs": False}
    calls[1][1].pop("progress")  # a bar, where it takes long
    assert calls == [3, (("m",), options)]
    set_threads(None)
    assert len(calls) == 2, "torch's own choice is left alone"


def test_a_checkpoint_is_opened_without_its_weights(folder):
    assert ModelSource(model="nano").checkpoint().config == griffin.GriffinConfig.preset("nano")
    assert ModelSource(model=str(folder)).checkpoint().folder == folder
    with pytest.raises(ValueError, match="no-such-model"):
        ModelSource(model="./no-such-model").checkpoint()


@pytest.mark.parametrize("say", [True, False])
def test_only_who_may_speak_shows_a_bar(monkeypatch, say):
    """Of several replicas it is the first."""
    seen = []
    monkeypatch.setattr(progress, "WorkBar", lambda *_, shown: seen.append(shown) or nullcontext())
    monkeypatch.setattr(griffin, "load", lambda *_, **options: LOADED)
    ModelSource(model="nano").llm(say)
    assert seen == [say]


def test_adapters_have_names_each_another(tmp_path, monkeypatch):
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path)
    given = ("one", "two=some/where", "x/y=z", "a=b")
    named = {"one": "one", "two": "some/where", "y=z": "x/y=z", "a=b": "a=b"}
    assert ModelSource(model="m", adapter=given).adapters == named
    with pytest.raises(click.UsageError, match="two adapters are called 'one': a/one and b"):
        _ = ModelSource(model="m", adapter=("a/one", "one=b")).adapters
    for bad in ("=folder", "name="):
        with pytest.raises(click.UsageError, match="give FOLDER, or NAME=FOLDER"):
            _ = ModelSource(model="m", adapter=(bad,)).adapters


def test_only_who_asks_each_request_takes_several(monkeypatch):
    loaded = []
    monkeypatch.setattr(griffin, "load", lambda *_, **options: loaded.append(options["adapter"]))
    source = ModelSource(model="m", adapter=("one", "two"))
    with pytest.raises(click.UsageError, match="one --adapter answers here, not 2"):
        source.llm(say=False)
    source.llm(say=False, several=True)
    assert loaded == [{"one": "one", "two": "two"}]
