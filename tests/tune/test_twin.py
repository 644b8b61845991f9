"""The anchor: a second adapter on one base, or a second model, that follows the policy."""

from __future__ import annotations

import pytest
import torch

from griffin.adapters import LoraConfig, adapt
from griffin.model import Griffin
from griffin.tune.twin import Twin
from tests.adapters.test_layers import make_adapter
from tests.support.toy_engine import CONFIG, make_model
from tests.tune.test_sample import adapted, change, drawn


def whole() -> Griffin:
    config = LoraConfig(rank=2, whole=("rg_lru",))
    return adapt(make_model(), make_adapter(config, CONFIG), train=True)


KINDS = {
    "lora": adapted,
    "int4": lambda: adapted("int4"),
    "whole": whole,
    "full": lambda: make_model().requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_follows_by_its_share(kind):
    """Parameter by parameter, in float64; the policy and what is frozen stay as they are."""
    policy = KINDS[kind]()
    twin = Twin(policy)
    begun = drawn(policy)
    assert drawn(twin.model) == begun
    before = {name: p.detach().double() for name, p in policy.named_parameters()}
    change(policy)
    moved, after = drawn(policy), {name: p.double() for name, p in policy.named_parameters()}
    assert drawn(twin.model) == begun != moved
    for _ in range(2):
        twin.follow(0.25)
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    own = dict(twin.model.named_parameters())
    assert twin.tensors("a").keys() == {f"a.{name}" for name in trained} and trained
    for name in trained:
        wanted = before[name] + (1 - 0.75**2) * (after[name] - before[name])
        torch.testing.assert_close(own[name].double(), wanted, atol=1e-6, rtol=1e-6)
        assert torch.equal(policy.get_parameter(name).double(), after[name])
    assert drawn(policy) == moved != drawn(twin.model)
    twin.follow(1.0)
    assert drawn(twin.model) == moved


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_is_there_once(kind):
    policy = KINDS[kind]()
    twin = Twin(policy).model
    tensors = dict([*policy.named_parameters(), *policy.named_buffers()])
    own = dict([*twin.named_parameters(), *twin.named_buffers()])
    assert own.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (own[name] is tensor) == (not tensor.requires_grad), name
        assert not (own[name].requires_grad and own[name].is_leaf and own[name] is not tensor)
    assert any(p.requires_grad for p in policy.parameters())
    if kind != "full":
        modules = dict(twin.named_modules())
        assert all(m is not modules[name] for name, m in policy.named_modules())
        assert twin.adapters is not policy.adapters


def test_values_that_are_put_back_are_the_twin_s():
    policy = adapted()
    twin = Twin(policy)
    change(policy)
    twin.follow(0.3)
    kept = {name: tensor.clone() for name, tensor in twin.tensors("anchor").items()}
    other = Twin(policy)
    assert drawn(other.model) != drawn(twin.model)
    for name, tensor in other.tensors("anchor").items():
        tensor.copy_(kept[name])
    assert drawn(other.model) == drawn(twin.model)
