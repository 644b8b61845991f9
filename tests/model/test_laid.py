"""Weights that are laid for a GPU's steps lie there once: layers have parts of them."""

from __future__ import annotations

import pytest
import torch

from griffin import ops
from griffin.bench.work import weight_bytes
from griffin.engine import Engine
from griffin.engine.graphs import NoGraphs
from griffin.model import Griffin, decode_step
from griffin.model.decode_step import lay_weights
from griffin.model.packed import PackedWeight, rounded_format
from griffin.quant import quantize_model
from tests.support.toy_engine import CHUNK, ask, make_model, plain, run

FORMATS = ("int8", "int4")


def laid_model(format: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Griffin, Griffin]:
    """Return a packed model, laid as on a GPU, and one of the same weights unpacked."""
    packed, other = make_model(), make_model()
    quantize_model(packed, format)
    for name, module in packed.named_modules():
        if isinstance(module, PackedWeight):
            other.get_parameter(f"{name}.weight").copy_(module.weight)
    monkeypatch.setattr(decode_step, "stays_packed", lambda device: False)
    lay_weights(packed)
    return packed, other


@pytest.mark.parametrize("format", FORMATS)
def test_packed_weights_are_given_up(format, monkeypatch):
    with torch.no_grad():
        packed, other = laid_model(format, monkeypatch)
        layers = [layer for layer in packed.modules() if isinstance(layer, PackedWeight)]
        assert all(layer.laid is not None for layer in layers)
        # Each layer's part is the memory of the whole, and was not copied by a second laying.
        wholes = {layer.whole().data.data_ptr(): layer.whole() for layer in layers}
        assert len(wholes) < len(layers)
        lay_weights(packed)
        assert {layer.whole().data.data_ptr() for layer in layers} == set(wholes)
        own = sum(layer.weight_packed.nbytes for layer in layers)
        assert own == sum(whole.data.nbytes for whole in wholes.values())
        assert rounded_format(packed) == format
        tokens = torch.arange(2, 30)[None]
        # As they are: on a GPU activations are not rounded for them.
        with ops.use("reference"):
            mine, theirs = packed(tokens)[0], other(tokens)[0]
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        assert weight_bytes(packed) < weight_bytes(other)


def test_steps_and_prompts_read_the_same_weights(monkeypatch):
    with torch.no_grad():
        packed, other = laid_model("int8", monkeypatch)
    found = []
    for model, graphs in ((packed, NoGraphs()), (other, False)):
        engine = Engine(model, 2, chunk=CHUNK, graphs=graphs)
        engine.submit(ask(9, 1, 20, temperature=0.0))
        with ops.use("reference"):
            found.append([id for id, _ in plain(run(engine))])
    assert found[0] == found[1] and len(found[0]) == 20


def test_what_was_laid_is_not_saved_and_stays_where_it_is(monkeypatch):
    with torch.no_grad():
        packed, _ = laid_model("int4", monkeypatch)
    with pytest.raises(ValueError, match=r"int4 weights were laid out .* graphs=False to save"):
        packed.state_dict()
    with pytest.raises(ValueError, match="cannot be undone"):
        packed.to("meta")
    packed.to("cpu")


def test_plain_weights_that_lie_together_are_not_copied_again():
    model = make_model()
    with torch.no_grad():
        lay_weights(model)
        first = [parameter.data_ptr() for parameter in model.parameters()]
        before = weight_bytes(model)
        lay_weights(model)
    assert [parameter.data_ptr() for parameter in model.parameters()] == first
    assert weight_bytes(model) == before


def test_on_a_cpu_they_stay_packed():
    with torch.no_grad():
        model = make_model()
        quantize_model(model, "int8")
        lay_weights(model)
    assert not any(layer.laid for layer in model.modules() if isinstance(layer, PackedWeight))
