"""A model with an adapter in it: what it computes, and that it comes out again."""

from __future__ import annotations

import threading

import pytest
import torch

from griffin.adapters import (
    Adapter,
    LoraConfig,
    adapt,
    adapter_of,
    merge_into,
    unadapt,
)
from griffin.adapters.adapter import expected
from griffin.model.adapted import AdaptedLinear, LowRank
from griffin.model.packed import PackedLinear
from griffin.ops import native
from griffin.quant import FORMATS, quantize_model
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens

LORA = LoraConfig(rank=3, alpha=5.0)
# Widths that rows of the kernels like.
FAST = GRIFFIN.replace(width=64, lru_width=64, num_heads=4, num_kv_heads=1, num_gate_blocks=4)


def make_adapter(config=LORA, shape=GRIFFIN, seed=0, name="a"):
    """Return an adapter none of whose tensors is zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        key: torch.randn(size, generator=generator) * 0.1
        for key, size in expected(config, shape).items()
    }
    return Adapter(name, config, tensors)


def by_hand(model, adapter):
    """Return a model whose matrices are W + scale B A, in the model's type."""
    other = make_model(model.config, dtype=model.dtype)
    state = model.state_dict()
    for key, a in adapter.tensors.items():
        if key.endswith(".lora_A"):
            layer = key.removesuffix(".lora_A")
            b = adapter.tensors[f"{layer}.lora_B"]
            state[f"{layer}.weight"] = state[f"{layer}.weight"] + adapter.config.scale * (
                b.to(model.dtype) @ a.to(model.dtype)
            )
        elif not key.endswith(".lora_B"):
            state[key] = a.to(model.dtype)
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize("shape", [GRIFFIN, HAWK], ids=["griffin", "hawk"])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("whole", [(), ("rg_lru",)])
def test_an_adapter_adds_the_product_of_its_matrices(shape, rslora, whole):
    model = make_model(shape, dtype=torch.float64)
    config = LoraConfig(rank=3, alpha=5.0, rslora=rslora, whole=whole)
    adapter = make_adapter(config, shape)
    tokens = make_tokens(shape, 2, 40)
    wanted = by_hand(model, adapter)(tokens)[0]
    plain = model(tokens)[0]
    found = adapt(model, adapter)(tokens)[0]
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)
    assert (found - plain).abs().max() > 1e-3


def test_a_new_adapter_changes_nothing_and_comes_out_again():
    model, tokens = make_model(GRIFFIN), make_tokens(GRIFFIN, 2, 30)
    before, modules = model(tokens)[0], dict(model.named_modules())
    new = Adapter.new("n", LORA, GRIFFIN, torch.Generator().manual_seed(1))
    adapt(model, new)
    assert torch.equal(model(tokens)[0], before)
    assert sum(isinstance(m, AdaptedLinear) for m in model.modules()) == len(new.tensors) // 2
    with pytest.raises(ValueError, match="has an adapter already"):
        adapt(model, new)
    unadapt(model)
    assert torch.equal(model(tokens)[0], before)
    assert dict(model.named_modules()) == modules


def test_what_is_in_a_model_is_read_off_it():
    adapter = make_adapter(LoraConfig(rank=2, whole=("rg_lru",)))
    model = adapt(make_model(GRIFFIN), adapter)
    found = adapter_of(model, "other", adapter.config)
    assert found.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(found.tensors[key], t) for key, t in adapter.tensors.items())
    assert found.digest() == adapter.digest()


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_on_a_packed_base(format):
    """The base is what it was; the adapter is added to its result."""
    model = make_model(GRIFFIN)
    quantize_model(model, format)
    name = "model.layers.0.mlp_block.up_proj"
    x = torch.randn(5, GRIFFIN.width, generator=torch.Generator().manual_seed(3))
    layer = model.get_submodule(name)
    assert isinstance(layer, PackedLinear)
    base = layer(x)
    adapter = make_adapter(shape=GRIFFIN)
    adapt(model, adapter)
    a, b = adapter.tensors[f"{name}.lora_A"], adapter.tensors[f"{name}.lora_B"]
    found = model.get_submodule(name)(x)
    torch.testing.assert_close(found, base + adapter.config.scale * (x @ a.T @ b.T))


def test_gradients_are_those_of_the_product():
    """Each matrix's, against a float64 loop over the tokens of one layer."""
    model = adapt(make_model(GRIFFIN, dtype=torch.float64), make_adapter(), train=True)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
    layer = model.get_submodule("model.layers.1.temporal_block.o_proj")
    assert isinstance(layer, AdaptedLinear)
    x = torch.randn(2, 7, GRIFFIN.width, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    slope = torch.randn_like(y)
    y.backward(slope)
    low = layer.added["0"]
    assert isinstance(low, LowRank)
    scale, a, b = low.scale, low.lora_A.detach(), low.lora_B.detach()
    da, db = torch.zeros_like(a), torch.zeros_like(b)
    dx = torch.zeros_like(x)
    weight = model.get_parameter("model.layers.1.temporal_block.o_proj.base.weight").detach()
    for row in range(2):
        for t in range(7):
            one, g = x[row, t].detach(), slope[row, t]
            db += scale * torch.outer(g, a @ one)
            da += scale * torch.outer(b.T @ g, one)
            dx[row, t] = weight.T @ g + scale * a.T @ (b.T @ g)
    torch.testing.assert_close(low.lora_A.grad, da)
    torch.testing.assert_close(low.lora_B.grad, db)
    torch.testing.assert_close(x.grad, dx)


def test_dropout_is_training_s_alone():
    config = LoraConfig(rank=3, dropout=0.5)
    tokens = make_tokens(GRIFFIN, 1, 9)
    answers = adapt(make_model(GRIFFIN), make_adapter(config)).train()
    assert torch.equal(answers(tokens)[0], answers(tokens)[0])
    model = adapt(make_model(GRIFFIN), make_adapter(config), train=True)
    layer = model.get_submodule("model.layers.0.temporal_block.linear_x")
    assert not torch.equal(model.train()(tokens)[0], model(tokens)[0])
    assert torch.equal(model.eval()(tokens)[0], model(tokens)[0])
    assert layer.in_features == GRIFFIN.width and layer.out_features == GRIFFIN.lru_width


def test_rows_have_the_same_bits_in_company():
    model, tokens = adapt(make_model(GRIFFIN), make_adapter()), make_tokens(GRIFFIN, 5, 3)
    with torch.no_grad():
        together = model(tokens)[0]
        for row in range(5):
            assert torch.equal(model(tokens[row : row + 1])[0][0], together[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_adapters_in_a_batch_are_each_as_alone(dtype):
    """And rows without one are as in a model that has none. The second leaves layers alone."""
    few = LoraConfig(rank=2, targets=("q_proj", "linear_x"))
    three = [
        make_adapter(name="one"),
        make_adapter(few, seed=1, name="two"),
        make_adapter(LoraConfig(rank=4, rslora=True), seed=2, name="three"),
    ]
    model = adapt(make_model(GRIFFIN, dtype=dtype), three)
    assert model.adapters.names == ("one", "two", "three")
    tokens, chosen = make_tokens(GRIFFIN, 6, 20), [2, -1, 0, 1, 0, 2]
    with torch.no_grad():
        hidden, state = model.trunk(tokens[:, :9], adapters=chosen)
        hidden = torch.cat([hidden, model.trunk(tokens[:, 9:], state, adapters=chosen)[0]], dim=1)
        for row, index in enumerate(chosen):
            one = make_model(GRIFFIN, dtype=dtype)
            one = adapt(one, three[index]) if index >= 0 else one
            first, own = one.trunk(tokens[row : row + 1, :9])
            second, _ = one.trunk(tokens[row : row + 1, 9:], own)
            assert torch.equal(torch.cat([first, second], dim=1)[0], hidden[row]), (row, index)
        assert torch.equal(
            model.trunk(tokens)[0], model.trunk(tokens, adapters=[0] * 6)[0]
        )  # the first, if none is chosen


def test_choices_that_cannot_be():
    model, tokens = adapt(make_model(GRIFFIN), make_adapter()), make_tokens(GRIFFIN, 2, 3)
    for chosen in ([0], [0, 1], [-2, 0], [0, 0, 0]):
        with pytest.raises(ValueError, match="adapters must be 2 numbers from -1 to 0, not"):
            model.trunk(tokens, adapters=chosen)
    with pytest.raises(ValueError, match="adapters must be 2 numbers from -1 to -1, not"):
        make_model(GRIFFIN).trunk(tokens, adapters=[0, -1])
    make_model(GRIFFIN).trunk(tokens, adapters=[-1, -1])
    assert [model.adapters.index(name) for name in ("", "a")] == [-1, 0]
    with pytest.raises(ValueError, match="there is no adapter 'b'; this model has a"):
        model.adapters.index("b")


def test_an_adapter_that_keeps_modules_whole_stands_alone():
    whole = make_adapter(LoraConfig(rank=2, whole=("rg_lru",)), name="whole")
    model = make_model(GRIFFIN)
    with pytest.raises(ValueError, match=r"cannot stand beside others \(whole, a\); merge it"):
        adapt(model, [whole, make_adapter()])
    adapt(model, whole)
    with pytest.raises(ValueError, match="numbers from 0 to 0"):
        model.trunk(make_tokens(GRIFFIN, 2, 3), adapters=[0, -1])
    with pytest.raises(ValueError, match="is read with adapter whole, which changes it for all"):
        model.adapters.index("")


def test_names_are_needed():
    for names in (("a", "a"), ("",), ()):
        with pytest.raises(ValueError, match="adapters need names, each another"):
            adapt(make_model(GRIFFIN), [make_adapter(name=name) for name in names])


def test_merged_is_the_same_model():
    adapter = make_adapter(LoraConfig(rank=3, whole=("rg_lru",)))
    model, tokens = make_model(GRIFFIN), make_tokens(GRIFFIN, 2, 20)
    change = merge_into(adapter, GRIFFIN)
    other = make_model(GRIFFIN)
    other.load_state_dict({name: change(name, t) for name, t in model.state_dict().items()})
    torch.testing.assert_close(other(tokens)[0], adapt(model, adapter)(tokens)[0])


BAD = {
    "lacks": ({"model.layers.0.mlp_block.up_proj.lora_A": None}, r"lacks model\.layers\.0\.mlp"),
    "unknown": ({"model.layers.9.x.lora_A": torch.ones(1)}, r"has model\.layers\.9\.x\.lora_A"),
    "shape": (
        {"model.layers.0.mlp_block.up_proj.lora_A": torch.ones(3, 47)},
        r"is \(3, 47\); for this model it must be \(3, 48\)",
    ),
    "nan": (
        {"model.layers.0.mlp_block.up_proj.lora_A": torch.full((3, 48), torch.nan)},
        "not all finite",
    ),
    "whole numbers": (
        {"model.layers.0.mlp_block.up_proj.lora_A": torch.ones(3, 48, dtype=torch.int32)},
        "not all finite numbers",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_an_adapter_that_does_not_fit_is_refused_whole(case):
    changes, words = BAD[case]
    adapter = make_adapter()
    tensors = {**adapter.tensors, **changes}
    bad = Adapter("a", LORA, {key: t for key, t in tensors.items() if t is not None})
    model = make_model(GRIFFIN)
    modules = dict(model.named_modules())
    with pytest.raises(ValueError, match=words):
        adapt(model, bad)
    assert dict(model.named_modules()) == modules


def test_digests_tell_what_answers_differ_by():
    one = make_adapter()
    assert one.digest() == make_adapter(name="b").digest()
    assert (
        one.digest()
        == Adapter("a", LoraConfig(rank=3, alpha=5.0, dropout=0.1), one.tensors).digest()
    )
    others = [
        make_adapter(seed=1),
        Adapter("a", LoraConfig(rank=3, alpha=6.0), one.tensors),
        Adapter("a", LORA, {k: t.double() for k, t in one.tensors.items()}),
    ]
    assert len({one.digest(), *(other.digest() for other in others)}) == 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rank": 0}, "rank must be at least 1, not 0"),
        ({"alpha": 0.0}, "alpha must be a positive number"),
        ({"alpha": float("nan")}, "alpha must be a positive number"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"targets": ()}, "must have targets; all of them are linear_x"),
        ({"targets": ("lm_head",)}, "targets must be among .*, not lm_head"),
        ({"targets": ("q_proj", "q_proj")}, "name one twice"),
        ({"whole": ("conv_1d",)}, "whole modules must be among rg_lru, not conv_1d"),
    ],
)
def test_configs_that_cannot_be(values, words):
    with pytest.raises(ValueError, match=words):
        LoraConfig(**values)


def test_a_model_without_the_targets():
    with pytest.raises(ValueError, match="no layer of this model is one of the adapter's: q_proj"):
        expected(LoraConfig(targets=("q_proj",)), HAWK)


@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_native_trunk_gives_the_bits_of_the_layers(format, dtype, steps, monkeypatch):
    """For every packed format, with rows of several adapters and of none."""
    if not native.built():
        pytest.skip("no compiled kernels")
    few = LoraConfig(rank=2, targets=("q_proj", "linear_x"))
    two = [make_adapter(shape=FAST), make_adapter(few, FAST, seed=1, name="b")]
    model = adapt(quantize_model(make_model(FAST, dtype=dtype), format), two)
    tokens = make_tokens(FAST, 4, 24)
    for chosen in ([0, -1, 1, 0], [0, 0, 0, 0], [-1, -1, -1, -1], None):
        with torch.no_grad():
            _, before = model.trunk(tokens[:, :19], adapters=chosen)
            assert model._fast is not None
            piece = tokens[:, 19 : 19 + steps]
            found, state = model.trunk(piece, before, adapters=chosen)
            with monkeypatch.context() as patch:
                patch.setattr(model, "_fast_trunk", lambda: None)
                wanted, own = model.trunk(piece, before, adapters=chosen)
        assert torch.equal(found, wanted), (chosen, (found - wanted).abs().max())
        for one, other in zip(state.layers, own.layers, strict=True):
            assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_is_computed_again_for_gradients_reads_with_the_same_adapters(dropout):
    config = LoraConfig(rank=3, alpha=5.0, dropout=dropout)
    pair = [make_adapter(config, seed=seed, name=str(seed)) for seed in (1, 2)]
    found = []
    for keep_every in (0, 1, 2):
        model = adapt(make_model(GRIFFIN), pair, train=True)
        model.keep_every = keep_every
        torch.manual_seed(0)
        hidden, _ = model.trunk(make_tokens(GRIFFIN, 3, 9), adapters=[1, -1, 0])
        hidden.square().sum().backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))


def test_what_one_thread_reads_with_is_nothing_to_another():
    """An engine's thread and those that score are in one model at the same time."""
    given = [make_adapter(name="a"), make_adapter(name="b", seed=1)]
    model = adapt(make_model(GRIFFIN), given)
    seen = []
    with model.adapters.reading((1, -1), 2):
        thread = threading.Thread(target=lambda: seen.append(model.adapters.chosen))
        thread.start()
        thread.join()
        assert model.adapters.chosen == (1, -1)
    assert seen == [None] and model.adapters.chosen is None
