"""`griffin merge`: a model and an adapter as one checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from griffin.adapters import LoraConfig, adapt, open_adapter, save_adapter
from griffin.checkpoints import load_model
from griffin.cli import main
from tests.adapters.test_layers import make_adapter
from tests.support.toy_folder import write_toy
from tests.support.toy_models import make_tokens


@pytest.fixture
def folder(tmp_path):
    write_toy(tmp_path / "toy")
    shape = load_model(tmp_path / "toy").config
    save_adapter(make_adapter(LoraConfig(rank=3, whole=("rg_lru",)), shape), tmp_path / "mine")
    return tmp_path


def test_merged_answers_as_adapted(folder):
    arguments = ["merge", str(folder / "toy"), str(folder / "mine"), str(folder / "out"), "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    fields = json.loads(done.stdout)
    assert fields["adapter"] == "mine" and "tokenizer.json" in fields["copied"]
    plain = load_model(folder / "toy", dtype="float32")
    tokens = make_tokens(plain.config, 2, 30)
    with torch.no_grad():
        before = plain(tokens)[0]
        wanted = adapt(plain, open_adapter(folder / "mine"))(tokens)[0]
        found = load_model(folder / "out", dtype="float32")(tokens)[0]
    deviation = (wanted - before).abs().max()
    assert (found - wanted).abs().max() < 0.05 * deviation
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_what_does_not_fit_is_refused_before_anything_is_written(folder):
    other = make_adapter(LoraConfig(rank=3))
    save_adapter(other, folder / "other")
    arguments = ["merge", str(folder / "toy"), str(folder / "other"), str(folder / "out")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and "adapter other" in done.stderr
    assert not (folder / "out").exists()
