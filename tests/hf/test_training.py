"""Losses and gradients: what the trunk's logits say, in tiles, computed again or in adapters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from griffin.hf import from_griffin
from griffin.model.recurrent import RecurrentBlock
from griffin.quant import quantize_model
from tests.hf.test_padding import LENGTHS, T, masks, padded
from tests.support.toy_models import GRIFFIN, make_model, make_tokens


@pytest.fixture
def model(model):
    return copy.deepcopy(model).requires_grad_(True).train()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def plain_loss(model, tokens, labels, **arguments):
    """Cross-entropy of whole logits, as transformers takes it."""
    logits = model(tokens, **arguments).logits[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100)


def test_the_loss_is_that_of_whole_logits(model):
    tokens = make_tokens(model.config.shape(), 3, 20)
    labels = tokens.clone()
    labels[0, :7] = -100
    expected = plain_loss(model, tokens, labels)
    wanted = gradients(model, expected)
    out = model(tokens, labels=labels)
    assert out.logits is None and out.past_key_values is None  # while training, neither
    torch.testing.assert_close(out.loss, expected)
    same(gradients(model, out.loss), wanted)

    shifted = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    torch.testing.assert_close(model(tokens, shift_labels=shifted).loss, expected)
    count = int((shifted != -100).sum())
    shared = model(tokens, labels=labels, num_items_in_batch=torch.tensor(2 * count)).loss
    torch.testing.assert_close(shared, expected / 2)
    assert model(tokens, labels=torch.full_like(tokens, -100)).loss == 0

    kept = model(tokens, labels=labels, skip_logits=False)
    assert torch.equal(kept.logits, model(tokens).logits)
    model.eval()
    assert model(tokens, labels=labels).logits is not None


@pytest.mark.parametrize("side", ["left", "right", "anywhere"])
def test_padded_rows_train_as_they_do_alone(model, side):
    tokens, mask = make_tokens(model.config.shape(), len(LENGTHS), T), masks(side)
    ids = padded(tokens, mask)
    # Where a row's tokens stand apart, the next one's place is not the next column.
    labels = torch.full_like(ids, -100)
    for row, length in enumerate(LENGTHS):
        places = mask[row].nonzero().squeeze(1)
        labels[row, places[:-1]] = tokens[row, 1:length]
    found = gradients(model, model(ids, attention_mask=mask, shift_labels=labels).loss)
    targets = sum(LENGTHS) - len(LENGTHS)
    alone = sum(
        model(row, labels=row, num_items_in_batch=targets).loss
        for row in (tokens[n : n + 1, :length] for n, length in enumerate(LENGTHS))
    )
    same(found, gradients(model, alone))


def test_computed_again_instead_of_kept(model, monkeypatch):
    tokens = make_tokens(model.config.shape(), 2, 20)
    expected = gradients(model, model(tokens, labels=tokens).loss)
    calls = []
    forward = RecurrentBlock.forward
    monkeypatch.setattr(
        RecurrentBlock, "forward", lambda self, *a: (calls.append(self), forward(self, *a))[1]
    )
    count = model.config.shape().block_types.count("recurrent")
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    same(gradients(model, model(tokens, labels=tokens).loss), expected)
    assert len(calls) == 2 * count
    calls.clear()
    model.activation_checkpointing_disable()
    same(gradients(model, model(tokens, labels=tokens).loss), expected)
    assert len(calls) == count


def test_a_head_that_was_wrapped_is_used(model):
    """As PEFT wraps it: loss and logits come from the wrapper."""

    class Louder(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.more = base, nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.base(x) * (1 + self.more)

    tokens = make_tokens(model.config.shape(), 2, 20)
    before = model(tokens).logits
    model.lm_head = Louder(model.lm_head)
    assert not torch.equal(model(tokens).logits, before)
    expected = plain_loss(model, tokens, tokens)
    found = model(tokens, labels=tokens).loss
    torch.testing.assert_close(found, expected)
    found.backward()
    assert model.lm_head.more.grad != 0


def test_layers_that_were_replaced_are_used(model):
    tokens = make_tokens(model.config.shape(), 2, 20)
    before = model(tokens).logits
    mlp = model.get_submodule("model.layers.0.mlp_block")
    mlp.down_proj = nn.Sequential(mlp.down_proj, nn.Dropout(1.0))
    assert not torch.equal(model(tokens).logits, before)


def test_bfloat16_by_autocast(model):
    tokens = make_tokens(model.config.shape(), 2, 20)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(tokens, labels=tokens).loss
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain_loss(model, tokens, tokens), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("format", ["int8", "bf16"])
def test_gradients_pass_through_packed_weights(format):
    griffin = quantize_model(make_model(GRIFFIN.replace(width=96), dtype=torch.bfloat16), format)
    model = from_griffin(griffin).train()
    name = "model.layers.0.temporal_pre_norm.weight"
    norm = model.get_parameter(name).requires_grad_(True)
    tokens = make_tokens(GRIFFIN, 2, 20)
    out = model(tokens, labels=tokens)
    out.loss.backward()
    assert norm.grad is not None and norm.grad.abs().sum() > 0
    torch.testing.assert_close(out.loss, plain_loss(model, tokens, tokens))
