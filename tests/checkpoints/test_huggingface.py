"""Hugging Face folders: ours read by transformers, transformers' read by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError, CheckpointWarning
from griffin.checkpoints.config_json import to_config_json
from griffin.model import GriffinConfig
from tests.support.toy_checkpoints import HUGGINGFACE, config, edit_config, edit_tensors, same
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens


@pytest.mark.parametrize("shape", [HUGGINGFACE, GRIFFIN, HAWK])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded(tmp_path: Path, shape: GriffinConfig, dtype: torch.dtype) -> None:
    model = make_model(shape, dtype=dtype)
    checkpoints.save_model(model, tmp_path / "m")
    again = checkpoints.load_model(tmp_path / "m")
    assert again.config == shape and same(model, again)
    tokens = make_tokens(shape, 2, 5)
    again.requires_grad_(False)  # as `model`: with gradients other code may sum in another order
    assert torch.equal(model(tokens)[0], again(tokens)[0])


def test_shards_and_stale_files(tmp_path: Path) -> None:
    one, other = make_model(HUGGINGFACE, 1), make_model(HUGGINGFACE, 2)
    (tmp_path / "tokenizer.json").write_text("{}")
    checkpoints.save_model(one, tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(shards) > 2 and set(index["weight_map"].values()) == {file.name for file in shards}
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in one.parameters())
    with safe_open(shards[0], "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert same(one, checkpoints.load_model(tmp_path))
    checkpoints.save_model(other, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert same(other, checkpoints.load_model(tmp_path))


def test_saving_over_the_file_a_model_is_mapped_from(tmp_path: Path) -> None:
    model = make_model(HUGGINGFACE)
    checkpoints.save_model(model, tmp_path)
    mapped = checkpoints.load_model(tmp_path).requires_grad_(False)
    mapped.model.final_norm.weight.add_(1.0)  # memory, not the file
    assert same(model, checkpoints.load_model(tmp_path))
    checkpoints.save_model(mapped, tmp_path)
    again = checkpoints.load_model(tmp_path)
    assert same(mapped, again) and not same(model, again)


def test_loading_maps_and_does_not_read(tmp_path: Path) -> None:
    model = make_model(config(vocab_size=100_000))  # 19 MB of embedding, 19 MB of head
    checkpoints.save_model(model, tmp_path)
    before = _anonymous()
    loaded = checkpoints.load_model(tmp_path)
    assert _anonymous() - before < 8 << 20
    assert same(model, loaded)


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def test_dtype_and_check(tmp_path: Path) -> None:
    model = make_model(HUGGINGFACE)
    checkpoints.save_model(model, tmp_path)
    assert same(
        model.to(torch.bfloat16), checkpoints.load_model(tmp_path, dtype="bfloat16", check=True)
    )
    with pytest.raises(ValueError, match="dtype must be one of"):
        checkpoints.load_model(tmp_path, dtype="int8")


def test_gradients_flow_into_a_mapped_model(tmp_path: Path) -> None:
    checkpoints.save_model(make_model(HUGGINGFACE), tmp_path)
    model = checkpoints.load_model(tmp_path)
    model(make_tokens(HUGGINGFACE, 1, 4))[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class TestHead:
    """A separate lm_head in files whose config ties it, or does not say."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        checkpoints.save_model(make_model(config(tie_embeddings=True)), tmp_path)
        return tmp_path

    def embedding(self, folder: Path) -> torch.Tensor:
        return checkpoints.open(folder).read("model.embed_tokens.weight").clone()

    def test_equal_is_tied(self, folder: Path) -> None:
        edit_tensors(folder, lm_head__weight=self.embedding(folder))
        assert checkpoints.load_model(folder).config.tie_embeddings

    def test_different_is_refused_where_the_config_ties(self, folder: Path) -> None:
        edit_tensors(folder, lm_head__weight=self.embedding(folder) + 1)
        with pytest.raises(
            CheckpointError, match=r"lm_head.weight differs from model.embed_tokens.weight"
        ):
            checkpoints.open(folder)

    def test_different_is_a_head_where_the_config_is_silent(self, folder: Path) -> None:
        edit_tensors(folder, lm_head__weight=self.embedding(folder) + 1)
        edit_config(folder, drop=("tie_word_embeddings",))
        model = checkpoints.load_model(folder)
        assert torch.equal(model.head_weight, self.embedding(folder) + 1)


def test_longer_embedding_is_cut(tmp_path: Path) -> None:
    model = make_model(config(tie_embeddings=True))
    checkpoints.save_model(model, tmp_path)
    rows = checkpoints.open(tmp_path).read("model.embed_tokens.weight").clone()
    edit_tensors(
        tmp_path, model__embed_tokens__weight=torch.cat([rows, torch.ones(7, rows.shape[1])])
    )
    with pytest.warns(CheckpointWarning, match="has 96 rows, the vocabulary 89; the last 7"):
        assert same(model, checkpoints.load_model(tmp_path))
    edit_tensors(tmp_path, model__embed_tokens__weight=rows[:-1])
    with pytest.raises(CheckpointError, match=r"has shape \[88, 48\], expected \[89, 48\]"):
        checkpoints.open(tmp_path)


def test_config_overrides(tmp_path: Path) -> None:
    checkpoints.save_model(make_model(HUGGINGFACE), tmp_path)
    assert checkpoints.load_model(tmp_path, config={"attention_window_size": 4}).config == config(
        attention_window_size=4
    )
    (tmp_path / "config.json").unlink()
    assert checkpoints.open(tmp_path, config=HUGGINGFACE).config == HUGGINGFACE
    whole = to_config_json(HUGGINGFACE, torch.float32)
    assert checkpoints.open(tmp_path, config=whole).config == HUGGINGFACE
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        checkpoints.open(tmp_path)


def test_digest(tmp_path: Path) -> None:
    checkpoints.save_model(make_model(HUGGINGFACE, 1), tmp_path / "a")
    checkpoints.save_model(make_model(HUGGINGFACE, 1), tmp_path / "b")
    checkpoints.save_model(make_model(HUGGINGFACE, 2), tmp_path / "c")
    a, b, c = (checkpoints.open(tmp_path / name).digest() for name in "abc")
    assert a == b != c and len(a) == 32
    edit_config(tmp_path / "b", attention_window_size=3)
    assert checkpoints.open(tmp_path / "b").digest() != a


def test_with_transformers_both_ways(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = make_model(HUGGINGFACE)
    checkpoints.save_model(model, tmp_path / "ours", max_shard_size="50KB")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float32
    )
    assert not any(report.values()), report
    tokens = make_tokens(HUGGINGFACE, 2, 12)  # within the window, where transformers is an oracle
    expected = model(tokens)[0]
    with torch.no_grad():
        found = theirs.eval()(tokens).logits
    assert (found - expected).abs().max() < 1e-4 * expected.std()
    theirs.save_pretrained(tmp_path / "theirs")
    again = checkpoints.load_model(tmp_path / "theirs")
    assert again.config == HUGGINGFACE and same(model, again)
