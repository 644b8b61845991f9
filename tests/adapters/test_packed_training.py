"""Training an adapter on packed weights: the forward pass is the engine's, gradients pass straight
through what is rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from griffin.adapters import LoraConfig, adapt
from griffin.engine import score
from griffin.model import Griffin, State
from griffin.model.packed import PackedLinear, PackedWeight
from griffin.ops import native, unpack
from griffin.quant import FORMATS, quantize_model
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import row_nats, token_nats
from griffin.train.objective import Objective
from tests.adapters.test_layers import FAST, LORA, make_adapter
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens

needs_native = pytest.mark.skipif(not native.built(), reason="no compiled kernels")
WHOLE = LoraConfig(rank=3, alpha=5.0, whole=("rg_lru",))


def make_learner(shape: Any, format: str | None, dtype: torch.dtype, config: Any = LORA) -> Griffin:
    """Return a frozen model in a format, None for as it is, with an adapter to train."""
    model = make_model(shape, dtype=dtype)
    if format is not None:
        quantize_model(model, format)
    return adapt(model, make_adapter(config, shape), dtype=torch.float32, train=True)


def rows_of_documents(shape: Any, length: int = 40) -> TrainBatch:
    """Return two rows of several documents each, some targets not counted."""
    tokens, targets = (make_tokens(shape, 2, length, seed=seed) for seed in (1, 2))
    starts = torch.zeros(2, length, dtype=torch.bool)
    starts[0, [0, 7, 8, 29]] = starts[1, [0, 21]] = True
    places = torch.arange(length).expand(2, length)
    begun = torch.where(starts, places, 0).cummax(1).values
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(3)) < 0.6
    return TrainBatch(tokens, targets, places - begun, mask)


@pytest.mark.sweep
@needs_native
@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [LORA, WHOLE], ids=["lora", "whole"])
@pytest.mark.parametrize("shape", [GRIFFIN, HAWK, FAST], ids=["griffin", "hawk", "fast"])
def test_training_computes_what_answering_does(
    format: str, dtype: torch.dtype, config: LoraConfig, shape: Any
) -> None:
    """To the bit: a last bit that differs may round an activation to another step."""
    model, tokens = make_learner(shape, format, dtype, config), make_tokens(shape, 3, 40)
    with torch.no_grad():
        wanted, state = model.trunk(tokens)
    for keep_every in (0, 1):
        model.keep_every = keep_every
        found, after = model.trunk(tokens)
        assert found.requires_grad and torch.equal(found, wanted)
        for one, other in zip(after.layers, state.layers, strict=True):
            assert all(map(torch.equal, one, other))


@needs_native
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_nats_are_the_engine_s_scores(format: str) -> None:
    model, tokens = make_learner(HAWK, format, torch.float32), make_tokens(HAWK, 1, 40)
    hidden, _ = model.trunk(tokens[:, :-1])
    nats = token_nats(hidden, model.head, tokens[:, 1:], soft_cap=HAWK.logits_soft_cap)
    scores = score(model, tokens[0].tolist(), adapter="a")
    torch.testing.assert_close(-nats[0].detach(), scores, rtol=0, atol=2e-6)


class Rounded(nn.Module):
    """A linear layer in float64 whose inputs are changed by what rounding changed them by."""

    def __init__(self, weight: Tensor, bias: Tensor | None, added: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, None if bias is None else bias.double()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x + self.added, self.weight, self.bias)


def rounding(x: Tensor, format: str) -> Tensor:
    """Return what rounding the activations of a product adds to them, as docs/numerics says."""
    if format not in ("int8", "int4") or (format == "int8" and not native.built()):
        return torch.zeros_like(x, dtype=torch.float64)
    group, most = (32, 127) if format == "int4" else (x.shape[-1], 32512)
    groups = functional.pad(x.float(), (0, -x.shape[-1] % group)).unflatten(-1, (-1, group))
    largest = groups.abs().amax(-1, keepdim=True)
    rounded = (groups * (most / largest)).round().double() * (largest.double() / most)
    return rounded.flatten(-2)[..., : x.shape[-1]] - x.double()


def watch(model: Griffin) -> dict[str, Tensor]:
    """Return what will hold the inputs of a model's packed layers, and of its head."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs: found.update({name: inputs[0].detach()})

    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            module.register_forward_pre_hook(keep(name))
    model.model.final_norm.register_forward_hook(
        lambda module, inputs, output: found.update(head=output.detach())
    )
    return found


def in_float64(model: Griffin, config: LoraConfig | None, seen: dict[str, Tensor]) -> Griffin:
    """Return the model in float64, with weights unpacked, and inputs rounded as they were.

    config: of the adapter that it has, None for none.
    """
    other = make_model(model.config, dtype=torch.float64)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, PackedWeight)}
    weights = {name: unpack(layer.packed).double() for name, layer in layers.items()}
    plain = {name.replace(".base.", "."): t for name, t in model.state_dict().items()}
    for name, parameter in other.named_parameters():
        layer = name.removesuffix(".weight")
        packed = weights.get(f"{layer}.base", weights.get(layer))
        parameter.copy_(plain[name] if packed is None else packed)
    if config is not None:
        adapt(other, make_adapter(config, model.config), dtype=torch.float64, train=True)
    for name, x in seen.items():
        if name in layers and name != "head":
            layer = cast(PackedLinear, layers[name])
            rounded = Rounded(weights[name], layer.bias, rounding(x, layer.format))
            other.set_submodule(name, rounded)
    return other


def wanted_nats(
    other: Griffin, batch: TrainBatch, added: Tensor, state: State | None = None
) -> Tensor:
    hidden, _ = other.trunk(batch.tokens, state, batch.segment_pos)
    cap = other.config.logits_soft_cap
    logits = cap * torch.tanh((hidden + added) @ other.head_weight.T / cap)
    nats = functional.cross_entropy(logits.movedim(-1, 1), batch.targets, reduction="none")
    return (nats * batch.mask).sum()


@pytest.mark.sweep
@pytest.mark.parametrize("format", [None, *sorted(FORMATS)])
@pytest.mark.parametrize("config", [LORA, WHOLE], ids=["lora", "whole"])
@pytest.mark.parametrize("shape", [GRIFFIN, HAWK], ids=["griffin", "hawk"])
@pytest.mark.parametrize("keep_every", [0, 1])
def test_gradients_equal_those_in_float64(
    format: str | None, config: LoraConfig, shape: Any, keep_every: int
) -> None:
    """Of every parameter of the adapter, with rows of several documents.

    float32 is within 2e-5 of the largest gradient of a tensor. With int8 within 1e-4, because some
    of its activations lie so near the middle of two steps (of 1 / 32,512) that a machine without
    that instruction rounds them to the other.
    """
    model, batch = make_learner(shape, format, torch.float32, config), rows_of_documents(shape)
    model.keep_every = keep_every
    seen = watch(model)
    nats, _ = row_nats(model, batch)
    nats.backward()
    assert (len(seen) > 10) == (format is not None)
    other = in_float64(model, config, seen)
    wanted = wanted_nats(other, batch, rounding(seen["head"], format or ""))
    wanted.backward()
    assert float(nats.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    theirs = dict(other.named_parameters())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained.keys() == {name for name, p in theirs.items() if p.requires_grad}
    for name, parameter in trained.items():
        gradient = theirs[name].grad
        assert parameter.grad is not None and gradient is not None and gradient.any(), name
        error = (parameter.grad - gradient).abs().max() / gradient.abs().max()
        assert error < (1e-4 if format == "int8" else 2e-5), (name, float(error))


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_an_adapter_learns_on_packed_weights(format: str) -> None:
    model, batch = make_learner(GRIFFIN, format, torch.bfloat16), rows_of_documents(GRIFFIN)
    objective = Objective(model)
    assert isinstance(model.model.embed_tokens, PackedWeight)  # nothing was unpacked for it
    trained = [p for p in objective.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in trained)
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    inputs, losses = (batch.tokens, batch.targets, batch.segment_pos, batch.mask), []
    for _ in range(12):
        optimizer.zero_grad()
        nats, _ = objective(*inputs)
        nats.backward()
        optimizer.step()
        losses.append(float(nats.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is None for p in objective.parameters() if not p.requires_grad)
