"""Packed layers inside a model: the same function of the rounded weights, in every format."""

from __future__ import annotations

import pytest
import torch

from griffin import ops
from griffin.model import Griffin
from griffin.model.layers import Embedding
from griffin.model.packed import PackedWeight, install, packable, packed_format
from griffin.ops.packed_linear.activations import round_activations
from griffin.quant import FORMATS, quantize_model
from tests.support.toy_models import GRIFFIN, HAWK, TOYS, make_model, make_tokens


def unpacked(packed: Griffin, plain: Griffin) -> Griffin:
    """Return `plain` with the values that `packed` has after rounding, given activations as it
    takes them."""
    with torch.no_grad():
        for name in packable(plain):
            layer = packed.get_submodule(name)
            assert isinstance(layer, PackedWeight)
            plain.get_parameter(name + ".weight").copy_(layer.weight)
            module, format = plain.get_submodule(name), layer.format
            if isinstance(module, Embedding):
                vars(module)["unembed"] = lambda x, f=module.unembed, format=format: f(
                    round_activations(x, format)
                )
            else:
                module.register_forward_pre_hook(
                    lambda _, given, format=format: (round_activations(given[0], format),)
                )
    return plain


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("format", FORMATS)
@torch.no_grad()
def test_the_same_function_of_the_rounded_weights(format: str, toy: str) -> None:
    model = quantize_model(make_model(TOYS[toy]), format)
    twin = unpacked(model, make_model(TOYS[toy]))
    tokens = make_tokens(model.config, 2, 50)
    found, after = model(tokens[:, :30])
    wanted, twin_after = twin(tokens[:, :30])
    more, _ = model(tokens[:, 30:], after)
    twin_more, _ = twin(tokens[:, 30:], twin_after)
    found, wanted = torch.cat([found, more], 1), torch.cat([wanted, twin_more], 1)
    # Kernels may round activations further, to 16 bits for int8 weights and to bfloat16 for bf16.
    bound = 1e-2 if format == "bf16" else 2e-3
    error = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    if format == "int4":
        # A last bit of difference may send an 8-bit activation to the other neighbour, for this
        # token and, through the state, a little for those after it: the first tokens are those to
        # compare.
        assert error.max() < 5e-2
        assert error[:, :8].median() < bound
    else:
        assert (found - wanted).norm() < bound * wanted.norm()
    assert (found - make_model(TOYS[toy])(tokens)[0]).norm() > 0


@pytest.mark.parametrize("format", FORMATS)
@torch.no_grad()
def test_rows_do_not_feel_each_other(format: str) -> None:
    model = quantize_model(make_model(GRIFFIN), format)
    tokens = make_tokens(GRIFFIN, 5, 1)
    together, _ = model.trunk(tokens)
    logits = model.unembed(together)
    for row in range(5):
        alone, _ = model.trunk(tokens[row : row + 1])
        assert torch.equal(model.unembed(together[row : row + 1]), logits[row : row + 1])
        assert torch.allclose(alone, together[row : row + 1], atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_lookup_is_the_row(format: str, dtype: torch.dtype) -> None:
    model = quantize_model(make_model(GRIFFIN, dtype=dtype), format)
    layer = model.model.embed_tokens
    tokens = torch.randint(89, (3, 400))  # more than are looked up at once
    found = layer(tokens)
    assert found.dtype == dtype and found.shape == (3, 400, 48)
    assert torch.equal(found, layer.weight.to(dtype)[tokens] * layer.scale)


def test_what_is_packed_and_what_is_not() -> None:
    plain, model = make_model(GRIFFIN), quantize_model(make_model(GRIFFIN), "int8")
    before, after = plain.state_dict(), model.state_dict()
    packed = {name.removesuffix("_packed") for name in after if name.endswith("_packed")}
    assert "model.embed_tokens.weight" in packed and "lm_head.weight" in packed
    assert len(packed) == 2 + 3 * (3 + 3) + 2 * (4 + 3)
    for name, tensor in before.items():
        kept = "norm" in name or "rg_lru" in name or "conv_1d" in name or name.endswith("bias")
        assert kept != (name in packed), name
        if kept:
            assert torch.equal(after[name], tensor)


def test_a_change_of_type_leaves_scales_alone() -> None:
    model = quantize_model(make_model(HAWK), "int8")
    scale = model.get_buffer("model.embed_tokens.weight_scale").clone()
    model.to(torch.bfloat16)
    after = model.get_buffer("model.embed_tokens.weight_scale")
    assert model.dtype == torch.bfloat16 and after.dtype == torch.float32
    assert torch.equal(after, scale)
    logits, state = model(make_tokens(HAWK, 1, 3))
    assert logits.dtype == torch.float32 and state.layers[0].conv.dtype == torch.bfloat16


def test_refusals() -> None:
    model = quantize_model(make_model(HAWK), "int8")
    assert packed_format(model) == "int8" and packed_format(make_model(HAWK)) is None
    with pytest.raises(ValueError, match="int8 already"):
        quantize_model(model, "int4")
    with pytest.raises(ValueError, match="no format 'q4'"):
        quantize_model(make_model(HAWK), "q4")
    packed = ops.pack(torch.ones(3, 4), "int8")
    with pytest.raises(ValueError, match="only Linear and Embedding"):
        install(make_model(HAWK), "model.final_norm", packed, torch.float32)
    with pytest.raises(ValueError, match=r"the packed weights are \(3, 4\)"):
        install(make_model(HAWK), "model.embed_tokens", packed, torch.float32)


def test_gradients_pass_through() -> None:
    model = quantize_model(make_model(HAWK), "int8")
    hidden = torch.randn(2, 3, 48, requires_grad=True)
    model.unembed(hidden).square().sum().backward()
    again = hidden.detach().clone().requires_grad_()
    cap = HAWK.logits_soft_cap
    (torch.tanh(again @ model.head_weight.T / cap) * cap).square().sum().backward()
    assert hidden.grad is not None and again.grad is not None
    assert (hidden.grad - again.grad).norm() < 1e-3 * again.grad.norm()
