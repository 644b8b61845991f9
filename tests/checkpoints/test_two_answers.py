"""Two files that answer one question are never chosen between in silence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError
from griffin.checkpoints.safetensors_files import INDEX, SINGLE
from griffin.model import Griffin
from tests.support.toy_checkpoints import DEEPMIND, HUGGINGFACE, same
from tests.support.toy_models import make_model

OLD, NEW = make_model(HUGGINGFACE, 1), make_model(HUGGINGFACE, 2)
NORM = "model.final_norm.weight"


def sharded(folder: Path, model: Griffin) -> Path:
    checkpoints.save_model(model, folder, "40KB")
    assert (folder / INDEX).is_file() and len(list(folder.glob("*.safetensors"))) > 2
    return folder


def single(folder: Path, model: Griffin, name: str = SINGLE) -> None:
    """Write a whole file and leave everything else in the folder as it is."""
    save_file({k: t.contiguous() for k, t in model.state_dict().items()}, folder / name)


def test_an_index_without_its_shards_gives_way(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m", OLD)
    single(folder, NEW)
    for file in folder.glob("model-*.safetensors"):
        file.unlink()
        checkpoint = checkpoints.open(folder)
        assert checkpoint.files == (folder / SINGLE,)
        (note,) = checkpoint.notes
        assert "names shards that are not there" in note and SINGLE in note
    with pytest.warns(checkpoints.CheckpointWarning, match="names shards that are not there"):
        assert same(checkpoints.load_model(folder), NEW)


@pytest.mark.parametrize("index_first", [True, False])
def test_both_whole_and_equal(tmp_path: Path, index_first: bool) -> None:
    folder = sharded(tmp_path / "m", NEW)
    single(folder, NEW)
    os.utime(folder / (INDEX if index_first else SINGLE), (0, 0))
    checkpoint = checkpoints.open(folder)
    assert len(checkpoint.notes) == 1
    with pytest.warns(checkpoints.CheckpointWarning, match="holds its weights twice"):
        assert same(checkpoints.load_model(checkpoint), NEW)


def another_value(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.4.mlp_block.down_proj.weight"][-1, -1] += 1


def another_sign_of_zero(tensors: dict[str, torch.Tensor]) -> None:
    tensors[NORM][0] = -0.0


def another_type(tensors: dict[str, torch.Tensor]) -> None:
    tensors[NORM] = tensors[NORM].double()


def another_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[NORM] = torch.zeros(49)


def one_less(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[NORM]


def one_more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["extra"] = torch.zeros(1)


@pytest.mark.parametrize(
    "change",
    [another_value, another_sign_of_zero, another_type, another_shape, one_less, one_more],
)
def test_both_whole_and_unequal(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    model = make_model(HUGGINGFACE, 2)
    with torch.no_grad():
        model.model.final_norm.weight[0] = 0.0
    folder = sharded(tmp_path / "m", model)
    single(folder, model)
    tensors = {name: t.clone() for name, t in load_file(folder / SINGLE).items()}
    change(tensors)
    save_file(tensors, folder / SINGLE)
    os.utime(folder / SINGLE, (1e9, 1e9))
    with pytest.raises(CheckpointError) as caught:
        checkpoints.open(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder / SINGLE) in text and str(folder / INDEX) in text
    assert "2001-09-0" in text and "hold different weights" in text
    # Each can be named, and then is what is read.
    assert same(checkpoints.load_model(folder / INDEX), model)
    if change in (another_value, another_sign_of_zero, another_type):
        assert checkpoints.open(folder / SINGLE).files == (folder / SINGLE,)


def test_what_is_not_there_twice_is_not_read_twice(tmp_path: Path) -> None:
    """An index may name the whole file itself, and a second name may be a link."""
    folder = tmp_path / "m"
    checkpoints.save_model(NEW, folder)
    names = dict.fromkeys(NEW.state_dict(), SINGLE)
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    checkpoint = checkpoints.open(folder)
    assert checkpoint.notes == () and same(checkpoints.load_model(checkpoint), NEW)


def weights(folder: Path) -> None:
    checkpoints.save_model(NEW, folder)


def archive(folder: Path) -> None:
    checkpoints.save_model(make_model(DEEPMIND), folder.parent / "deepmind")
    checkpoints.convert(folder.parent / "deepmind", folder.parent / "x.pt", "deepmind-torch")
    (folder.parent / "x.pt").rename(folder / "2b.pt")
    shutil.copy(folder.parent / "deepmind" / "config.json", folder)


def orbax(folder: Path) -> None:
    pytest.importorskip("tensorstore")
    checkpoints.save_model(make_model(DEEPMIND), folder.parent / "for-orbax")
    checkpoints.convert(folder.parent / "for-orbax", folder / "params", "deepmind-flax")


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")


def old_adapter(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"")


def other_archive(folder: Path) -> None:
    (folder / "7b.pt").write_bytes(b"")


@pytest.mark.parametrize(
    ("makers", "named"),
    [
        ((weights, archive), ["several checkpoints", "2b.pt", "safetensors"]),
        ((weights, orbax), ["several checkpoints", "params", "safetensors"]),
        ((archive, orbax), ["several checkpoints", "2b.pt", "params"]),
        ((archive, other_archive), ["several checkpoints", "2b.pt", "7b.pt"]),
        ((weights, adapter), ["adapter", "adapter_config.json", "adapter_model.safetensors"]),
        ((weights, old_adapter), ["adapter_model.bin"]),
        ((archive, adapter), ["adapter_model.safetensors"]),
        ((adapter,), ["adapter_model.safetensors", "merge it into its base model"]),
    ],
    ids=lambda value: "+".join(f.__name__ for f in value) if isinstance(value, tuple) else "",
)
def test_two_models_in_one_folder(
    tmp_path: Path, makers: tuple[Callable[[Path], None], ...], named: list[str]
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for maker in makers:
        maker(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.open(folder)
    assert all(word in str(caught.value) for word in named) and "\n" not in str(caught.value)
    if weights in makers and archive not in makers:
        assert same(checkpoints.load_model(folder / SINGLE), NEW)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.fp16.safetensors", True),
        ("consolidated.safetensors", True),
        ("model-00007-of-00009.safetensors", True),
        ("pytorch_model.bin", True),
        ("pytorch_model-00001-of-00002.bin", True),
        ("consolidated.00.pth", True),
        ("optimizer.pt", False),
        ("optimizer.bin", False),
        ("scheduler.pt", False),
        ("rng_state.pth", False),
        ("rng_state_0.pth", False),
        ("training_args.bin", False),
    ],
)
@pytest.mark.parametrize("shards", [True, False])
def test_what_else_lies_there_is_said(tmp_path: Path, name: str, said: bool, shards: bool) -> None:
    folder = tmp_path / "m"
    (sharded if shards else checkpoints.save_model)(*((folder, NEW) if shards else (NEW, folder)))
    (folder / name).write_bytes(b"whatever")
    checkpoint = checkpoints.open(folder)
    assert any(name in note for note in checkpoint.notes) == said == bool(checkpoint.notes)
    if said:
        with pytest.warns(checkpoints.CheckpointWarning, match=name):
            checkpoints.load_model(checkpoint)


def test_two_spellings_of_a_config(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    weights(folder)
    fields = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"sliding_window": 3}, "attention_window_size=16, sliding_window=3"),
        ({"_block_types": ["attention"]}, "block_types"),
        ({"layer_types": ["sliding_attention"] * 5}, "layer_types"),
        ({"rope_theta": 3.0}, "rope_theta=3.0 and rope_parameters.rope_theta=500.0"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"torch_dtype": "float16"}, "dtype='float32', torch_dtype='float16'"),
    ):
        (folder / "config.json").write_text(json.dumps(fields | change))
        with pytest.raises(CheckpointError, match="contradicts itself") as caught:
            checkpoints.open(folder)
        assert message in str(caught.value)
