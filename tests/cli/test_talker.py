"""The bundled model that answers: whoever talks and names none gets it, if it is here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from griffin.checkpoints import load_model, model_names, save_model
from griffin.checkpoints.model_names import resolve, talker
from griffin.loading import load
from tests.support.toy_folder import write_toy


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """Return a folder of bundled models: nano, and in the test's mini-it a random toy in int8."""
    nano = resolve("nano")
    folder = tmp_path / "data"
    toy = write_toy(folder / "mini-it", do_sample=False, max_new_tokens=3)
    save_model(load_model(toy, quantize="int8"), toy)
    (folder / "nano").symlink_to(nano)
    monkeypatch.setattr(model_names, "_BUNDLED", folder)
    return folder


def test_chat_takes_it_and_says_what_it_is(bundled, run, tmp_path):
    assert talker() == "mini-it" and resolve("mini-it") == bundled / "mini-it"
    said = run("chat", "--store", tmp_path / "s", stdin="hello\n")
    assert said.exit_code == 0, said.output
    assert "mini-it is a toy of 0.1 million weights: it knows little, and errs" in said.stderr
    assert "one: recurrentgemma-2b-it" in said.stderr and "mini-it: began" in said.stderr
    assert load("mini-it").chat_defaults.temperature == 0.0
    # Text is gone on with by nano, and a model that is named is taken.
    assert run("chat", "--model", "nano", "--no-persist", stdin="").stderr.count("nano") == 2
    assert run("generate", "--max-tokens", 1, "--json", "x").exit_code == 0


def test_serve_takes_it(bundled, run, monkeypatch):
    taken = list[str]()
    monkeypatch.setattr(
        "griffin.cli.serve.ModelSource.llm", lambda self, **_: taken.append(self.model) or 1 / 0
    )
    run("serve", "--port", 0)
    assert taken == ["mini-it"]


def test_its_format_is_listed(bundled, run):
    lines = run("models", "--json").stdout.splitlines()
    found = {one["model"]: one for one in map(json.loads, lines)}
    assert found["mini-it"]["format"] == "int8" and found["nano"]["format"] == "bfloat16"


def test_without_it_nano_is_taken(tmp_path, monkeypatch):
    data = Path(model_names.__file__).parents[1] / "data"
    (tmp_path / "nano").symlink_to(data / "nano")
    monkeypatch.setattr(model_names, "_BUNDLED", tmp_path)
    assert talker() == "nano"
