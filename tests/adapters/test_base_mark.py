"""An adapter knows the weights that it was trained on, and copies of them in fewer bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

import griffin
from griffin import checkpoints
from griffin.adapters import Adapter, BaseMark, LoraConfig, check_base, open_adapter, save_adapter
from griffin.checkpoints import load_model, save_model
from griffin.cli import main
from griffin.model import Griffin
from tests.adapters.test_layers import make_adapter
from tests.support.toy_checkpoints import DEEPMIND
from tests.support.toy_folder import CONFIG, write_toy

ROOT = Path(__file__).parents[2]


def changed(base: Path, folder: Path, name: str) -> Path:
    """Write a model of which the tensors of this name have been moved a little."""
    model = load_model(base)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(name):
                parameter.mul_(1.02)
    write_toy(folder)
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, one that differs in its norms, one in its matrices alone, and an adapter of it."""
    home = tmp_path_factory.mktemp("mark")
    toy = write_toy(home / "toy")
    changed(toy, home / "other", "norm.weight")
    changed(toy, home / "sibling", "_proj.weight")
    mark = BaseMark.of(checkpoints.open(toy), "our/toy")
    made = make_adapter(LoraConfig(rank=2), CONFIG, name="mine")
    save_adapter(replace(made, mark=mark), home / "mine")
    for format in ("int8", "int4"):
        checkpoints.quantize(toy, home / format, format)
        checkpoints.quantize(home / "other", home / f"other-{format}", format)
    checkpoints.convert(toy, home / "bf16", "huggingface", "bfloat16")
    checkpoints.quantize(home / "bf16", home / "bf16-int8", "int8", screen=True)
    return home


def marked(home: Path) -> Adapter:
    return open_adapter(home / "mine")


def _verb(verb: str, model: Path, adapter: Path, tmp_path: Path) -> Result:
    given = ["--model", str(model), "--adapter", str(adapter)]
    words = {
        "generate": ["generate", *given, "x"],
        "serve": ["serve", *given, "--port", "0", "--no-store"],
        "merge": ["merge", str(model), str(adapter), str(tmp_path / "out")],
    }[verb]
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("other", ["other", "sibling", "other-int8", "other-int4"])
def test_another_model_of_the_shape_is_refused_by_name(home: Path, other: str) -> None:
    with pytest.raises(ValueError) as error:
        griffin.load(home / other, adapter=home / "mine")
    said = str(error.value)
    assert "adapter mine was trained on our/toy" in said and str(home / other) in said
    assert ("matrices" if other == "sibling" else "norms, biases or gates") in said


@pytest.mark.parametrize("verb", ["generate", "serve", "merge"])
def test_every_verb_refuses_it_in_one_line(home: Path, verb: str, tmp_path: Path) -> None:
    done = _verb(verb, home / "other", home / "mine", tmp_path)
    assert done.exit_code == 2 and "was trained on our/toy" in done.stderr, done.output
    assert "Traceback" not in done.output and not (tmp_path / "out").exists()


@pytest.mark.parametrize("copy", ["toy", "int8", "int4", "bf16", "bf16-int8"])
def test_copies_of_its_base_are_taken(home: Path, copy: str) -> None:
    check_base([marked(home)], checkpoints.open(home / copy), copy)
    llm = griffin.load(home / copy, adapter=home / "mine", quantize=None)
    assert llm.adapter == "mine" and llm.generate("x", max_tokens=2, seed=0).text


def test_a_copy_that_is_merged_is_of_the_base(home: Path, tmp_path: Path) -> None:
    done = _verb("merge", home / "int8", home / "mine", tmp_path)
    assert done.exit_code == 0 and (tmp_path / "out").is_dir(), done.output


def test_trained_on_rounded_weights_it_fits_the_whole_ones(home: Path) -> None:
    """What was packed says nothing of its matrices, so the sibling cannot be told from the base."""
    mark = BaseMark.of(checkpoints.open(home / "int4"), "int4")
    assert not mark.matrices
    adapter = replace(marked(home), mark=mark)
    for fits in ("toy", "int8", "sibling"):
        check_base([adapter], checkpoints.open(home / fits), fits)
    with pytest.raises(ValueError, match="trained on int4; other is another model"):
        check_base([adapter], checkpoints.open(home / "other"), "other")


def test_other_layouts_hold_the_same_model(tmp_path: Path) -> None:
    model = Griffin(DEEPMIND)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    save_model(model, tmp_path / "hf")
    checkpoints.convert(tmp_path / "hf", tmp_path / "toy.pt", to="deepmind-torch")
    there = BaseMark.of(checkpoints.open(tmp_path / "hf"), "hf")
    shape = {"config": DEEPMIND}
    here = BaseMark.of(checkpoints.open(tmp_path / "toy.pt", **shape), "pt")
    assert there.kept == here.kept and there.matrices and not here.matrices
    assert there.unlike(here) == ""


def test_every_tensor_counts(home: Path, tmp_path: Path) -> None:
    """Of each tensor one value at its end is enough."""
    right = BaseMark.of(checkpoints.open(home / "toy"), "")
    tensors = load_file(home / "toy" / "model.safetensors")
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "config.json").write_bytes((home / "toy" / "config.json").read_bytes())
    for key in tensors:
        others = {name: tensor.clone() for name, tensor in tensors.items()}
        others[key].view(-1)[-1] += 1
        save_file(others, folder / "model.safetensors", {"format": "pt"})
        assert right.unlike(BaseMark.of(checkpoints.open(folder), "")), key


def test_a_file_of_peft_is_taken_without_it(home: Path, tmp_path: Path) -> None:
    """And what is said in docs/adapters.md takes the mark out of ours."""
    for name in ("norm", "plain"):
        kept = replace(marked(home), mark=None if name == "plain" else marked(home).mark)
        save_adapter(kept, tmp_path / name)
    assert open_adapter(tmp_path / "plain").mark is None
    assert griffin.load(home / "other", adapter=tmp_path / "plain").adapter == "plain"
    golden = open_adapter(ROOT / "tests/golden/adapter")
    assert golden.mark is None


def test_the_mark_is_where_peft_does_not_look(home: Path) -> None:
    fields = json.loads((home / "mine" / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == "our/toy"
    assert not any("griffin" in key for key in fields)
    assert marked(home).mark == BaseMark.of(checkpoints.open(home / "toy"), "our/toy")


@pytest.mark.parametrize("said", ["", "[]", '{"kept": "1"}', '{"name":1,"kept":"","matrices":""}'])
def test_a_mark_that_is_none_names_the_file(home: Path, tmp_path: Path, said: str) -> None:
    folder = save_adapter(marked(home), tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file), file, {"format": "pt", "griffin_base": said})
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors: its metadata's griffin_ba"):
        open_adapter(folder)
