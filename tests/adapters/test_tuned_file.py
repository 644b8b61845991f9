"""Tuned states as files: read again to the bit, and refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from griffin.adapters import is_tuned, open_tuned, save_tuned_state
from griffin.model import State, TunedState
from tests.support.toy_models import GRIFFIN, HAWK, make_model


def learnt(config=GRIFFIN, keys: int = 3) -> TunedState:
    model = make_model(config)
    tuned = TunedState.begin(model, [2] * keys, weights="abc", adapter="lora", name="nano")
    moved = {name: t + torch.randn_like(t) for name, t in tuned.tensors().items()}
    return replace(tuned, **moved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [GRIFFIN, HAWK], ids=["griffin", "hawk"])
def test_written_and_read_again_it_is_the_same_to_the_bit(tmp_path, config, dtype):
    tuned = learnt(config).to(dtype)
    file = tmp_path / "chef.state"
    size = save_tuned_state(tuned, file)
    assert size == file.stat().st_size < tuned.nbytes + 4096
    assert file.stat().st_mode & 0o777 == 0o600 and is_tuned(file)
    again = open_tuned(file)
    assert again.digest() == tuned.digest() and again.keys == 3
    assert (again.config, again.weights, again.adapter) == (config, "abc", "lora")
    assert again.name == "nano"
    for name, tensor in tuned.tensors().items():
        assert again.tensors()[name].dtype == tensor.dtype
        assert torch.equal(again.tensors()[name], tensor)
    again.check(config, "abc", "lora")


def rewritten(file, change) -> None:
    """Write a file again, in which `change` did something to metadata and tensors."""
    with safe_open(file, framework="pt") as opened:
        said = dict(opened.metadata())
    tensors = load_file(file)
    change(said, tensors)
    save_file(tensors, file, said)


def config_of(said, **fields):
    said["config"] = json.dumps(json.loads(said["config"]) | fields)


CASES = {
    "another version": (lambda said, _: said.update(version="9"), "tuned state of version '9'"),
    "a field more": (lambda said, _: said.update(extra="1"), "with the fields adapter, config"),
    "another kind": (lambda said, _: said.update(kind="x", format="griffin-portable-state"),
                     "no tuned state: its format is 'griffin-portable-state'"),
    "a tensor less": (lambda _, tensors: tensors.pop("v"), "holds conv, k, lru; a tuned state"),
    "a tensor more": (lambda _, found: found.update(w=torch.ones(1)), "holds conv, k, lru, v, w"),
    "another shape": (lambda said, _: config_of(said, lru_width=20), "'lru_width'|lru is"),
    "a config of none": (lambda said, _: config_of(said, colour=3), "colour"),
    "no config": (lambda said, _: said.update(config="[1"), "its config"),
    "a number more": (
        lambda _, tensors: tensors.update(lru=tensors["lru"] + 1),
        "torn: its tensors are not those that were written",
    ),
    "NaN": (
        lambda _, tensors: tensors.update(k=tensors["k"] * float("nan")),
        "the tuned state's k .* is not all finite numbers",
    ),
    "n = 0": (
        lambda _, tensors: tensors.update(
            {name: tensors[name][:, :0].contiguous() for name in ("k", "v")}
        ),
        "n = 0 keys; it needs at least 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_files_that_are_refused(tmp_path, case):
    change, words = CASES[case]
    file = tmp_path / "chef.state"
    save_tuned_state(learnt(), file)
    rewritten(file, change)
    with pytest.raises(ValueError, match=words) as error:
        open_tuned(file)
    assert str(file) in str(error.value)


def test_torn_and_foreign_files_are_refused(tmp_path):
    file = tmp_path / "chef.state"
    with pytest.raises(ValueError, match=r"there is no tuned state .*chef\.state"):
        open_tuned(file)
    assert not is_tuned(file)
    save_tuned_state(learnt(), file)
    whole = file.read_bytes()
    for end in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"chef\.state"):
            open_tuned(file)
    for at in (len(whole) - 1, len(whole) - 1000):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"torn|finite"):
            open_tuned(file)
    State.zeros(GRIFFIN).save(file)
    assert not is_tuned(file)
    with pytest.raises(ValueError, match="no tuned state: its format is 'griffin-state'"):
        open_tuned(file)


def test_what_would_be_refused_is_not_written(tmp_path):
    tuned = learnt()
    with pytest.raises(ValueError, match="not all finite"):
        save_tuned_state(replace(tuned, lru=tuned.lru / 0), tmp_path / "bad")
    assert not list(tmp_path.iterdir())
