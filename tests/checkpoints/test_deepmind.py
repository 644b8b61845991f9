"""DeepMind's archives: which model they are, and that their own code reads ours and we read
theirs."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError
from griffin.checkpoints.deepmind import RELEASED, config_for
from griffin.checkpoints.rename import deepmind_shapes
from griffin.model import PRESETS, GriffinConfig
from tests.support.rivals import official_config
from tests.support.toy_checkpoints import DEEPMIND, UNTOLD, same
from tests.support.toy_models import make_model, make_tokens

# Orbax notes that it takes the shardings from the file, which is what is wanted.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("rows", [256_000, 256_128])
def test_released_shapes_are_presets(tmp_path: Path, name: str, rows: int) -> None:
    shapes = deepmind_shapes(PRESETS[name], "torch")
    shapes["embedder.input_embedding"] = (rows, PRESETS[name].width)
    assert config_for(shapes, None, tmp_path, tmp_path) == PRESETS[name]
    window = config_for(shapes, {"attention_window_size": 64}, tmp_path, tmp_path)
    assert window == PRESETS[name].replace(attention_window_size=64)


def test_other_shapes_need_to_be_told(tmp_path: Path) -> None:
    shapes = deepmind_shapes(DEEPMIND, "torch")
    assert config_for(shapes, UNTOLD, tmp_path, tmp_path) == DEEPMIND
    assert config_for(shapes, DEEPMIND, tmp_path, tmp_path) == DEEPMIND
    with pytest.raises(
        CheckpointError, match=r"cannot tell logits_soft_cap, scale_embeddings; pass config="
    ):
        config_for(shapes, {"attention_window_size": 16}, tmp_path, tmp_path)
    hawk = DEEPMIND.replace(block_types=("recurrent",) * 2)
    found = config_for(
        deepmind_shapes(hawk, "torch"),
        {"logits_soft_cap": 5.0, "scale_embeddings": True},
        tmp_path,
        tmp_path,
    )
    assert found == hawk.replace(attention_window_size=1024)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 96}, {"mlp_width": 79}, {"lru_width": 60}, {"num_heads": 3},
        {"num_gate_blocks": 3},
        {"conv_width": 5}, {"vocab_size": 90}, {"num_kv_heads": 2}, {"attention_bias": True},
        {"tie_embeddings": False}, {"block_types": ("recurrent",) * 5},
    ],
)  # fmt: skip
def test_contradictions_name_the_field(tmp_path: Path, change: dict[str, Any]) -> None:
    shapes = deepmind_shapes(DEEPMIND, "torch")
    (field,) = change
    with pytest.raises(CheckpointError, match=rf"{field}=.* \(the tensors say "):
        config_for(shapes, {**UNTOLD, **change}, tmp_path, tmp_path)


def test_damaged_trees_of_names(tmp_path: Path) -> None:
    shapes = deepmind_shapes(DEEPMIND, "torch")
    gap = {name: shape for name, shape in shapes.items() if not name.startswith("blocks.1.")}
    with pytest.raises(CheckpointError, match="numbered from 0 without gaps"):
        config_for(gap, UNTOLD, tmp_path, tmp_path)
    both = {**shapes, "blocks.0.attention_block.proj_k.weight": (8, 48)}
    with pytest.raises(CheckpointError, match=r"blocks\.0 holds both"):
        config_for(both, UNTOLD, tmp_path, tmp_path)
    with pytest.raises(CheckpointError, match="expected 3 dimensions"):
        config_for({**shapes, "blocks.0.mlp_block.ffw_up.w": (2, 3)}, UNTOLD, tmp_path, tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoints.save_model(make_model(DEEPMIND), tmp_path / "hf")
    return tmp_path / "hf"


def official(config: GriffinConfig) -> Any:
    pytest.importorskip("recurrentgemma")
    return official_config(config)


def test_their_torch_code_reads_ours(saved: Path, tmp_path: Path) -> None:
    theirs = pytest.importorskip("recurrentgemma.torch")
    checkpoints.convert(saved, tmp_path / "a.pt", "deepmind-torch")
    state = torch.load(tmp_path / "a.pt", weights_only=True, mmap=True)
    model = theirs.Griffin(official(DEEPMIND), gradient_checkpointing=False)
    model.load_state_dict(state, strict=True)
    tokens = make_tokens(DEEPMIND, 2, 20)
    expected = make_model(DEEPMIND)(tokens)[0]
    with torch.no_grad():
        found = model(tokens, torch.arange(20).expand(2, 20))[0]
    assert (found - expected).abs().max() < 1e-4 * expected.std()
    torch.save({f"params.{name}": t for name, t in state.items()}, tmp_path / "b.pt")
    assert same(checkpoints.load_model(tmp_path / "b.pt", config=UNTOLD), make_model(DEEPMIND))
    torch.save(model.state_dict(), tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    assert same(checkpoints.load_model(tmp_path / "c.pt", config=UNTOLD), make_model(DEEPMIND))


def restore(folder: Path) -> dict[str, Any]:
    orbax = pytest.importorskip("orbax.checkpoint")
    return orbax.PyTreeCheckpointer().restore(str(folder))


def test_their_flax_code_reads_ours(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several chunks, the last one short.
    monkeypatch.setattr("griffin.checkpoints.deepmind_flax._CHUNK", 1000)
    checkpoints.convert(saved, tmp_path / "flax", "deepmind-flax")
    tree = restore(tmp_path / "flax")
    jax = pytest.importorskip("jax")
    theirs = pytest.importorskip("recurrentgemma.jax")
    tokens, positions = np.zeros((1, 4), np.int32), np.arange(4)[None]
    model = theirs.Griffin(official(DEEPMIND))
    expected = jax.eval_shape(model.init, jax.random.key(0), tokens, positions)["params"]
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(
        lambda found, wanted: np.testing.assert_equal(found.shape, wanted.shape), tree, expected
    )
    state = make_model(DEEPMIND).state_dict()
    block = tree["blocks.0"]
    name = "model.layers.0.temporal_block."
    rows = np.array(tree["embedder"]["input_embedding"])
    np.testing.assert_array_equal(rows, state["model.embed_tokens.weight"])
    kernel = np.array(block["recurrent_block"]["linear_out"]["kernel"])
    np.testing.assert_array_equal(kernel.T, state[name + "linear_out.weight"])
    up = np.array(block["mlp_block"]["ffw_up"]["w"])
    np.testing.assert_array_equal(up[1].T, state["model.layers.0.mlp_block.up_proj.weight"])


@pytest.mark.sweep
@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("zarr3", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_we_read_what_orbax_writes(
    saved: Path, tmp_path: Path, ocdbt: bool, zarr3: bool, wrapped: bool
) -> None:
    orbax = pytest.importorskip("orbax.checkpoint")
    checkpoints.convert(saved, tmp_path / "ours", "deepmind-flax", dtype="bfloat16")
    tree = restore(tmp_path / "ours")
    handler = orbax.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)
    orbax.Checkpointer(handler).save(
        str(tmp_path / "theirs/2b"), {"params": tree} if wrapped else tree
    )
    expected = make_model(DEEPMIND, dtype=torch.bfloat16)
    (tmp_path / "theirs/tokenizer.model").write_bytes(b"x")
    for path in (tmp_path / "theirs/2b", tmp_path / "theirs"):
        assert same(checkpoints.load_model(path, config=UNTOLD), expected)
    assert checkpoints.open(tmp_path / "theirs", config=UNTOLD).folder == tmp_path / "theirs"


def test_a_missing_or_damaged_chunk_is_no_zero(saved: Path, tmp_path: Path) -> None:
    orbax = pytest.importorskip("orbax.checkpoint")
    checkpoints.convert(saved, tmp_path / "ours", "deepmind-flax")
    orbax.Checkpointer(orbax.PyTreeCheckpointHandler(use_ocdbt=False)).save(
        str(tmp_path / "zarr"), restore(tmp_path / "ours")
    )
    chunk = tmp_path / "zarr/final_norm.scale/0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"final_norm\.scale cannot be read"):
            checkpoints.load_model(tmp_path / "zarr", config=UNTOLD)
        chunk.unlink(missing_ok=True)
    (tmp_path / "zarr/final_norm.scale/.zarray").write_text("{}")
    with pytest.raises(CheckpointError, match=r"final_norm\.scale is damaged"):
        checkpoints.load_model(tmp_path / "zarr", config=UNTOLD)


def test_a_truncated_database(saved: Path, tmp_path: Path) -> None:
    checkpoints.convert(saved, tmp_path / "ours", "deepmind-flax")
    for file in (tmp_path / "ours/d").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"ours"):
        checkpoints.load_model(tmp_path / "ours")


@pytest.mark.parametrize(("free", "error"), [(1 << 20, OSError), (1 << 40, CheckpointError)])
def test_a_write_that_fails_is_a_full_disk_where_the_disk_is_full(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, error: type[Exception]
) -> None:
    """tensorstore has no error of its own for that."""

    def fail(*_: Any) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        raise ValueError("an error of tensorstore's")

    monkeypatch.setattr("griffin.checkpoints.deepmind_flax._values", fail)
    with pytest.raises(error) as caught:
        checkpoints.convert(saved, tmp_path / "ours", "deepmind-flax")
    assert getattr(caught.value, "errno", None) == (errno.ENOSPC if error is OSError else None)
    assert not (tmp_path / "ours").exists()


def test_without_tensorstore(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorstore", None)
    with pytest.raises(CheckpointError, match=r"griffin-lm\[flax\]"):
        checkpoints.convert(saved, tmp_path / "ours", "deepmind-flax")
    assert not (tmp_path / "ours").exists()
