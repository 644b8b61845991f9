"""The files of PEFT: read, written, and refused by name."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from griffin import checkpoints
from griffin.adapters import BaseMark, LoraConfig, adapt, open_adapter, save_adapter
from griffin.checkpoints import CheckpointWarning, load_model
from tests.adapters.test_layers import make_adapter
from tests.golden.make_adapter import make
from tests.support.toy_models import GRIFFIN, make_model, make_tokens

GOLDEN = Path(__file__).parents[1] / "golden"


def golden():
    with pytest.warns(CheckpointWarning, match="not read"):
        return load_model(GOLDEN / "huggingface", dtype="float32")


def test_an_adapter_of_peft_gives_the_logits_that_it_gives_there():
    given = load_file(GOLDEN / "adapter/expected.safetensors")
    model = golden()
    adapter = open_adapter(GOLDEN / "adapter")
    assert adapter.name == "adapter"
    assert adapter.config == LoraConfig(
        rank=2, alpha=3.0, rslora=True, dropout=0.1, whole=("rg_lru",)
    )
    with torch.no_grad():
        before = model(given["tokens"])[0]
        found = adapt(model, adapter)(given["tokens"])[0]
    assert (found - given["logits"]).abs().max() < 1e-4
    assert (found - before).abs().max() > 0.1


def test_written_and_read_again(tmp_path):
    adapter = make_adapter(LoraConfig(rank=2, alpha=7.0, whole=("rg_lru",)))
    folder = save_adapter(adapter, tmp_path / "mine", base="google/recurrentgemma-2b")
    again = open_adapter(folder)
    assert again.name == "mine" and again.config == adapter.config
    assert again.digest() == adapter.digest()
    again.check(GRIFFIN)
    tokens = make_tokens(GRIFFIN, 1, 9)
    with torch.no_grad():
        one = adapt(make_model(GRIFFIN), adapter)(tokens)[0]
        assert torch.equal(adapt(make_model(GRIFFIN), again)(tokens)[0], one)
    assert open_adapter(folder, "other").name == "other"


FIELDS = {
    "another method": ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is read"),
    "dora": ({"use_dora": True}, "use_dora is 'True', which is not implemented"),
    "biases": ({"bias": "all"}, "bias is 'all', which is not implemented"),
    "ranks by layer": ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is"),
    "unknown": ({"frobnicate": 3}, "frobnicate is '3', which is not implemented"),
    "a pattern": ({"target_modules": ".*_proj"}, "target_modules is '.*_proj'; expected a list"),
    "a layer that is not known": ({"target_modules": ["lm_head"]}, "among linear_x"),
    "rank 0": ({"r": 0}, "rank must be at least 1, not 0"),
    "rank as text": ({"r": "2"}, "r is '2', which is of another type"),
    "rank as truth": ({"r": True}, "r is 'True', which is of another type"),
    "changed base": ({"init_lora_weights": "pissa_niter_4"}, "it began with pissa_niter_4"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_configs_that_are_refused(tmp_path, case):
    changes, words = FIELDS[case]
    folder = save_adapter(make_adapter(), tmp_path / "a")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError) as error:
        open_adapter(folder)
    assert words in str(error.value) and str(file) in str(error.value)


def test_files_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no adapter: there is no adapter_config\.json"):
        open_adapter(tmp_path)
    folder = save_adapter(make_adapter(), tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is truncated"):
        open_adapter(folder)
    save_file({"model.layers.0.x": torch.ones(1)}, weights)
    with pytest.raises(ValueError, match=r"is no tensor of an adapter; they begin base_model\."):
        open_adapter(folder)
    weights.unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="is a pickle, which is not read"):
        open_adapter(folder)
    os.mkfifo(weights)
    with pytest.raises(ValueError, match="has no adapter_model"):
        open_adapter(folder)


def test_missing_and_unknown_keys_are_named_where_the_model_is_known(tmp_path):
    """Elsewhere adapters load partly and say nothing."""
    folder = save_adapter(make_adapter(), tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = "base_model.model.model.layers.0.mlp_block.up_proj.lora_B.weight"
    save_file({name: t for name, t in tensors.items() if name != key}, file)
    with pytest.raises(ValueError, match=r"lacks model\.layers\.0\.mlp_block\.up_proj\.lora_B"):
        adapt(make_model(GRIFFIN), open_adapter(folder))
    save_file(tensors | {key.replace("lora_B", "lora_C"): torch.ones(1)}, file)
    with pytest.raises(ValueError, match=r"has model\.layers\.0\.mlp_block\.up_proj\.lora_C"):
        adapt(make_model(GRIFFIN), open_adapter(folder))
    fields = json.loads((folder / "adapter_config.json").read_text())
    fields["target_modules"].remove("up_proj")
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"has model\.layers\.0\.mlp_block\.up_proj"):
        adapt(make_model(GRIFFIN), open_adapter(folder))


needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="no peft: make test-oracles")


@pytest.mark.slow
@needs_peft
@pytest.mark.parametrize("marked", [False, True])
def test_an_adapter_of_ours_in_peft(tmp_path, marked):
    """With the mark of its base, too; and merged by PEFT it is what we merge."""
    from peft import PeftModel  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM

    given = load_file(GOLDEN / "adapter/expected.safetensors")
    ours = golden()
    adapter = make_adapter(LoraConfig(rank=3, alpha=2.0, whole=("rg_lru",)), ours.config)
    if marked:
        mark = BaseMark.of(checkpoints.open(GOLDEN / "huggingface"), "golden")
        adapter = dataclasses.replace(adapter, mark=mark)
    folder = save_adapter(adapter, tmp_path / "a")
    assert open_adapter(folder).mark == adapter.mark
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / "huggingface", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        expected = theirs(given["tokens"], use_cache=False).logits
        found = adapt(ours, adapter)(given["tokens"])[0]
        assert (found - expected).abs().max() < 1e-4
        merged = theirs.merge_and_unload()(given["tokens"], use_cache=False).logits
        assert (found - merged).abs().max() < 1e-4
    shutil.rmtree(folder)


@pytest.mark.slow
@needs_peft
def test_an_adapter_of_peft_is_still_the_golden_one(tmp_path):
    """Written anew by the PEFT and the transformers that are installed, and read here."""
    make(tmp_path / "peft")
    for name in ("adapter_model.safetensors", "expected.safetensors"):
        written, kept = (load_file(at / name) for at in (tmp_path / "peft", GOLDEN / "adapter"))
        assert written.keys() == kept.keys()
        for key, tensor in kept.items():
            torch.testing.assert_close(written[key], tensor, rtol=0, atol=1e-5, msg=key)
    expected = load_file(tmp_path / "peft/expected.safetensors")
    with torch.no_grad():
        found = adapt(golden(), open_adapter(tmp_path / "peft"))(expected["tokens"])[0]
    assert (found - expected["logits"]).abs().max() < 1e-4
