"""Weights on their way in and out: the same numbers, the same names, and what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import griffin as package
from griffin.checkpoints import save_model
from griffin.hf import GriffinForCausalLM, GriffinModel, RecurrentGemmaForCausalLM, from_griffin
from griffin.hf.config import config_of
from griffin.quant import quantize_model
from tests.support.toy_checkpoints import HUGGINGFACE, edit_config, edit_tensors
from tests.support.toy_folder import write_toy
from tests.support.toy_models import GRIFFIN, make_model, make_tokens

KINDS = {"recurrent_gemma": RecurrentGemmaForCausalLM, "griffin": GriffinForCausalLM}


def read(folder, config):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = KINDS[kind].from_pretrained(folder)
    assert type(model) is KINDS[kind] and model.config.shape() == config
    return model


def test_a_round_trip_keeps_numbers_and_names(griffin, tmp_path):
    tokens = make_tokens(griffin.config, 2, 40)
    expected = griffin(tokens)[0]
    save_model(griffin, tmp_path / "ours")
    model = read(tmp_path / "ours", griffin.config)
    assert torch.equal(model(tokens).logits, expected)

    model.save_pretrained(tmp_path / "theirs")
    ours = load_file(tmp_path / "ours/model.safetensors")
    theirs = load_file(tmp_path / "theirs/model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    again = package.load_model(tmp_path / "theirs")
    assert again.config == griffin.config and torch.equal(again(tokens)[0], expected)
    assert torch.equal(read(tmp_path / "theirs", griffin.config)(tokens).logits, expected)


def test_the_stored_type_stays(tmp_path):
    griffin = make_model(HUGGINGFACE, dtype=torch.bfloat16)
    save_model(griffin, tmp_path)
    model = RecurrentGemmaForCausalLM.from_pretrained(tmp_path)
    tokens = make_tokens(HUGGINGFACE, 1, 20)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model(tokens).logits, griffin(tokens)[0])


def test_a_head_of_its_own_is_used_where_the_config_says_nothing(tmp_path):
    griffin = make_model(HUGGINGFACE)  # not tied
    save_model(griffin, tmp_path)
    edit_config(tmp_path, drop=("tie_word_embeddings",))
    tokens = make_tokens(HUGGINGFACE, 1, 20)
    model = RecurrentGemmaForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(model(tokens).logits, griffin(tokens)[0])


def test_a_weight_that_is_missing_is_drawn_as_griffin_draws_it(tmp_path):
    save_model(make_model(GRIFFIN), tmp_path)
    name = "model.layers.0.temporal_block.rg_lru.recurrent_param"
    edit_tensors(tmp_path, **{name.replace(".", "__"): None})
    model = GriffinForCausalLM.from_pretrained(tmp_path)
    drawn = model.get_parameter(name)
    # The moduli of `a` lie between 0.9 and 0.999 at a recurrence gate of 1/8.
    a = (-torch.nn.functional.softplus(drawn)).exp()
    assert (a > 0.89).all() and (a < 1).all() and a.std() > 0


def test_new_weights_are_griffins(griffin):
    torch.manual_seed(0)
    model = from_griffin(griffin)
    fresh = type(model)(model.config)
    twin = package.Griffin(griffin.config)
    for name, parameter in twin.named_parameters():
        found = fresh.get_parameter(name)
        spread = (parameter.std(), found.std()) if parameter.numel() > 1000 else (1, 1)
        assert float(spread[0]) == pytest.approx(float(spread[1]), rel=0.1), name
    tied = fresh.lm_head.weight is fresh.model.embed_tokens.weight
    assert tied == griffin.config.tie_embeddings


def test_without_a_head(griffin, tmp_path):
    save_model(griffin, tmp_path)
    model = from_griffin(griffin)
    config = model.config
    trunk = type("Base", (GriffinModel,), {"config_class": type(config)}).from_pretrained(tmp_path)
    tokens = make_tokens(griffin.config, 2, 20)
    assert torch.equal(trunk(tokens).last_hidden_state, griffin.trunk(tokens)[0])


def test_it_shares_the_weights_it_was_made_from(griffin):
    model = from_griffin(griffin)
    mine, its = dict(griffin.named_parameters()), dict(model.named_parameters())
    assert mine.keys() - its.keys() == set() and all(mine[name] is its[name] for name in mine)
    tokens = make_tokens(griffin.config, 2, 20)
    assert torch.equal(model(tokens).logits, griffin(tokens)[0])


@pytest.mark.parametrize("format", ["int8", "bf16"])
def test_packed_weights_run_as_they_do_here_and_are_not_saved(format, tmp_path):
    config = GRIFFIN.replace(width=96, tie_embeddings=True)
    griffin = quantize_model(make_model(config, dtype=torch.bfloat16), format)
    model = from_griffin(griffin)
    tokens = make_tokens(config, 2, 20)
    with torch.no_grad():
        expected = griffin(tokens)[0]
        assert torch.equal(model(tokens).logits, expected)
        # A model that has run can be copied.
        assert torch.equal(copy.deepcopy(model)(tokens).logits, expected)
    assert model.lm_head.weight_packed is model.model.embed_tokens.weight_packed
    model.tie_weights()
    with pytest.raises(ValueError, match=f"packed for inference \\({format}\\)"):
        model.save_pretrained(tmp_path)


def test_a_copy_is_on_its_own(model):
    twin = copy.deepcopy(model)
    assert twin.model.core.model is twin.model
    with torch.no_grad():
        twin.model.embed_tokens.weight.zero_()
    tokens = make_tokens(model.config.shape(), 1, 5)
    assert not torch.equal(twin(tokens).logits, model(tokens).logits)


def test_a_vocabulary_can_grow(model):
    tokens = make_tokens(model.config.shape(), 1, 9)
    before, size = model(tokens).logits, model.config.vocab_size
    model.resize_token_embeddings(size + 3, mean_resizing=False)
    after = model(torch.cat([tokens, torch.tensor([[size + 2]])], 1)).logits
    assert after.shape[-1] == size + 3
    torch.testing.assert_close(after[:, :9, :size], before)


def test_the_names_of_others_for_what_a_config_says(model):
    config, shape = model.config, model.config.shape()
    assert config.final_logit_softcapping == (shape.logits_soft_cap or None)
    assert config.hidden_size == shape.width and config.num_attention_heads == shape.num_heads
    assert config.num_hidden_layers == shape.num_layers
    assert config.tie_word_embeddings == shape.tie_embeddings
    assert (
        config_of(make_model(GRIFFIN.replace(logits_soft_cap=0.0))).final_logit_softcapping is None
    )


def test_a_config_that_asks_for_something_else_is_refused(tmp_path):
    save_model(make_model(HUGGINGFACE), tmp_path)
    edit_config(tmp_path, hidden_activation="relu")
    with pytest.raises(ValueError, match="hidden_activation"):
        RecurrentGemmaForCausalLM.from_pretrained(tmp_path)


def test_a_quantized_folder_is_for_from_griffin(tmp_path):
    config = HUGGINGFACE.replace(width=96, tie_embeddings=True)
    griffin = quantize_model(make_model(config, dtype=torch.bfloat16), "int8")
    save_model(griffin, tmp_path)
    with pytest.raises(ValueError, match=r"quantized \(int8\).* griffin.hf.from_griffin"):
        RecurrentGemmaForCausalLM.from_pretrained(tmp_path)
    tokens = make_tokens(config, 1, 20)
    model = from_griffin(package.load_model(tmp_path))
    assert torch.equal(model(tokens).logits, griffin(tokens)[0])


REGISTER = """
import sys
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
import griffin.hf

folder = sys.argv[1]
theirs = type(AutoConfig.from_pretrained(folder))
assert theirs.__module__.startswith("transformers."), theirs  # importing changed nothing
for _ in range(2):
    griffin.hf.register()
for found in (
    AutoConfig.from_pretrained(folder),
    AutoModel.from_pretrained(folder),
    model := AutoModelForCausalLM.from_pretrained(folder),
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)),
    transformers.RecurrentGemmaForCausalLM.from_pretrained(folder),
    sys.modules["transformers"].RecurrentGemmaForCausalLM.from_pretrained(folder),
):
    assert type(found).__module__.startswith("griffin.hf"), type(found)
assert type(model).__name__ == "RecurrentGemmaForCausalLM"
ids = AutoTokenizer.from_pretrained(folder)("import json", return_tensors="pt").input_ids
print(model.generate(ids, max_new_tokens=4).shape[1] > ids.shape[1])
"""


@pytest.mark.thorough
def test_register_puts_ours_in_the_place_of_theirs(tmp_path):
    """In a process of its own: other tests here ask for transformers' own class."""
    write_toy(tmp_path / "toy")
    done = subprocess.run(
        [sys.executable, "-c", REGISTER, str(tmp_path / "toy")], capture_output=True, text=True
    )
    assert done.stdout.strip() == "True", done.stderr
