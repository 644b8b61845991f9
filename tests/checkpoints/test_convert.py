"""Every direction, bit for bit; and nothing half-written, whatever interrupts."""

from __future__ import annotations

import errno
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError, Progress
from griffin.checkpoints.convert import Target
from griffin.checkpoints.models import parse_size
from griffin.model import GriffinConfig
from griffin.model.init import init_std
from tests.support.toy_checkpoints import DEEPMIND, UNTOLD, same
from tests.support.toy_models import GRIFFIN, make_model

LAYOUTS: tuple[Target, ...] = get_args(Target)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoints.save_model(make_model(DEEPMIND), tmp_path / "hf")
    for name in (
        "tokenizer.json",
        "tokenizer.model",
        "generation_config.json",
        "chat_template.jinja",
    ):
        (tmp_path / "hf" / name).write_text(name)
    return tmp_path / "hf"


@pytest.mark.sweep
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_every_direction_is_exact(
    saved: Path, tmp_path: Path, first: Target, second: Target
) -> None:
    steps: list[Progress] = []
    checkpoints.convert(saved, tmp_path / "one", first, dtype="bfloat16")
    made = checkpoints.convert(tmp_path / "one", tmp_path / "two", second, progress=steps.append)
    model = make_model(DEEPMIND, dtype=torch.bfloat16)
    again = checkpoints.load_model(tmp_path / "two", check=True)
    assert again.config == DEEPMIND and same(again, model)
    assert all(p.is_contiguous() for p in again.parameters())
    assert made.copied == (
        "tokenizer.json",
        "tokenizer.model",
        "generation_config.json",
        "chat_template.jinja",
    )
    assert (tmp_path / "two/tokenizer.model").read_text() == "tokenizer.model"
    done = [step.done for step in steps]
    assert done == sorted(done) and done[0] == 0 and done[-1] == steps[-1].total == made.nbytes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "one", "two"]


def test_an_archive_file_needs_to_be_told(saved: Path, tmp_path: Path) -> None:
    checkpoints.convert(saved, tmp_path / "x.pt", "deepmind-torch")
    with pytest.raises(CheckpointError, match="attention_window_size"):
        checkpoints.open(tmp_path / "x.pt")
    assert same(checkpoints.load_model(tmp_path / "x.pt", config=UNTOLD), make_model(DEEPMIND))


@pytest.mark.parametrize("limit", [None, 64])
def test_the_archive_is_a_sound_zip_file(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """Checksums hold, data is aligned, and torch reads it mapped and not; with 64-bit sizes too."""
    if limit:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    checkpoints.convert(saved, tmp_path / "x.pt", "deepmind-torch")
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        assert archive.testzip() is None
    mapped = torch.load(tmp_path / "x.pt", weights_only=True, mmap=True)
    plain = torch.load(tmp_path / "x.pt", weights_only=True)
    assert mapped.keys() == plain.keys() and all(
        torch.equal(t, plain[n]) for n, t in mapped.items()
    )
    assert all(t.data_ptr() % 64 == 0 for t in mapped.values())
    assert same(checkpoints.load_model(tmp_path / "x.pt", config=UNTOLD), make_model(DEEPMIND))


def test_what_a_layout_cannot_hold(tmp_path: Path) -> None:
    checkpoints.save_model(make_model(GRIFFIN), tmp_path / "m")
    for to in LAYOUTS[1:]:
        with pytest.raises(CheckpointError, match=r"num_kv_heads=2 .*conv_width=3"):
            checkpoints.convert(tmp_path / "m", tmp_path / "out", to)
    made = checkpoints.convert(tmp_path / "m", tmp_path / "out")
    assert "num_gate_blocks=5 differs" in made.notes[0]
    assert same(checkpoints.load_model(tmp_path / "out"), make_model(GRIFFIN))


def test_overflow_of_a_narrow_type(saved: Path, tmp_path: Path) -> None:
    model = make_model(DEEPMIND)
    model.model.final_norm.weight[3] = 1e6
    checkpoints.save_model(model, saved)
    with pytest.raises(
        CheckpointError, match=r"final_norm\.weight holds 1 values that are NaN or infinite"
    ):
        checkpoints.convert(saved, tmp_path / "out", dtype="float16")


def test_targets_that_exist(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    checkpoints.convert(saved, tmp_path / "out")
    with pytest.raises(CheckpointError, match="exists already"):
        checkpoints.convert(saved, tmp_path / "out")
    with pytest.raises(ValueError, match="to must be one of"):
        checkpoints.convert(saved, tmp_path / "other", "gguf")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_an_interruption_leaves_nothing(
    saved: Path, tmp_path: Path, to: Target, error: BaseException
) -> None:
    def stop(step: Progress) -> None:
        if step.done > step.total // 2:
            raise error

    with pytest.raises(type(error)) as caught:
        checkpoints.convert(saved, tmp_path / "out", to, progress=stop)
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.ENOSPC and "nothing half-written was left" in str(
            caught.value
        )
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_no_room_is_said_before_writing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(OSError, match=r"no room to write .* 10 are free") as caught:
        checkpoints.convert(saved, tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_a_full_disk_while_saving_leaves_the_old_weights(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> memoryview:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(p.name for p in saved.parent.rglob("*"))
    monkeypatch.setattr("griffin.checkpoints.safetensors_files.tensor_bytes", full)
    with pytest.raises(OSError, match="no room to write"):
        checkpoints.save_model(make_model(DEEPMIND, 2), saved)
    monkeypatch.undo()
    assert sorted(p.name for p in saved.parent.rglob("*")) == before
    assert same(checkpoints.load_model(saved), make_model(DEEPMIND))


@pytest.mark.parametrize("to", LAYOUTS)
def test_random_weights(tmp_path: Path, to: Target) -> None:
    shape = DEEPMIND.replace(width=192, lru_width=192, mlp_width=300)
    model = draw(shape, tmp_path / "a", to)
    assert same(model, draw(shape, tmp_path / "b", "huggingface"))
    assert not same(model, draw(shape, tmp_path / "c", to, seed=1))
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        if name.endswith("recurrent_param"):
            a = torch.exp(-torch.nn.functional.softplus(tensor.float()))
            assert a.min() > 0.89 and a.max() <= 1 and a.std() > 0.01
        elif (std := init_std(name, shape)) == 0:
            assert not tensor.any()
        else:
            error = abs(float(tensor.float().std()) / std - 1)
            assert error < 5 / math.sqrt(2 * tensor.numel()) + 1e-3, name


def draw(shape: GriffinConfig, path: Path, to: Target, seed: int = 0) -> Any:
    checkpoints.convert(checkpoints.random_checkpoint(shape, seed=seed), path, to)
    return checkpoints.load_model(path)


def test_sizes() -> None:
    sizes = {7: 7, "7": 7, "5GB": 5 * 10**9, "512MiB": 512 << 20, " 3 kb": 3000}
    assert [parse_size(size) for size in sizes] == list(sizes.values())
    for wrong in ("", "GB", "0", "-1GB", "1.5GB", "5XB"):
        with pytest.raises(ValueError, match="size"):
            parse_size(wrong)
