"""A model with adapters in its linear layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.adapters.adapter import A, Adapter, B, expected
from griffin.adapters.config import LoraConfig
from griffin.model import Griffin, GriffinConfig
from griffin.model.adapted import AdaptedLinear, Adapters, LowRank
from griffin.model.layers import Linear
from griffin.model.packed import PackedLinear


def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return W + scale * B A, formed in float32 or wider, in W's type."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    added = (b.detach().to(wide) @ a.detach().to(wide)).mul_(scale)
    return added.add_(weight.detach().to(wide)).to(weight.dtype)


def check_together(adapters: Sequence[Adapter]) -> None:
    """Raise ValueError unless these may stand in one model: each has a name, another than the
    others, and one that changes the model for all has no others beside it."""
    names = [adapter.name for adapter in adapters]
    if not names or len(set(names)) < len(names) or not all(names):
        raise ValueError(f"adapters need names, each another, not {', '.join(names) or 'none'}")
    alone = [adapter.name for adapter in adapters if adapter.config.whole]
    if alone and len(names) > 1:
        raise ValueError(
            f"adapter {alone[0]} keeps modules whole (rg_lru), which changes the model for all: it"
            f" cannot stand beside others ({', '.join(names)}); merge it, or load it alone"
        )


def adapt(
    model: Griffin,
    adapters: Adapter | Sequence[Adapter],
    dtype: torch.dtype | None = None,
    *,
    train: bool = False,
) -> Griffin:
    """Put adapters into a model, whose other weights stay the same objects; return the model.

    dtype: of the adapters' tensors; the model's if omitted. Modules that an adapter keeps whole
           take its values, or keep the model's where it has none yet (a new one); then it must be
           the only one, and every row reads with it.
    train: gradients are for the adapter's parameters, and for no other, and there is dropout;
           otherwise neither.
    `model.adapters` then has their names, and `trunk(adapters=...)` says which row reads with
    which.
    Raises ValueError, and changes nothing, for an adapter that does not fit, for a name twice, and
    for a model that has some already.
    """
    given = [adapters] if isinstance(adapters, Adapter) else list(adapters)
    if model.adapters.names:
        raise ValueError("this model has an adapter already; take it out with unadapt(model)")
    check_together(given)
    filled = [_filled(model, adapter) for adapter in given]
    if train:
        model.requires_grad_(False)
    names, digests = [one.name for one in filled], [one.digest() for one in filled]
    shared = Adapters(names, digests, alone=any(one.config.whole for one in filled))

    def placed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return ops.unmap(tensor.detach().to(model.device, dtype, copy=True))  # into large pages

    added: dict[str, dict[int, LowRank]] = {}
    for index, adapter in enumerate(filled):
        for key, tensor in adapter.tensors.items():
            if key.endswith(A):
                name = key.removesuffix(A)
                kind = dtype or model.dtype
                pair = placed(tensor, kind), placed(adapter.tensors[name + B], kind)
                # A model that was loaded is in training mode; what answers leaves nothing out.
                dropout = adapter.config.dropout if train else 0.0
                low_rank = LowRank(*pair, adapter.config.scale, dropout).requires_grad_(train)
                added.setdefault(name, {})[index] = low_rank
            elif not key.endswith(B):
                parent, _, leaf = key.rpartition(".")
                own = model.get_parameter(key)
                # In bfloat16 what is trained would lose small steps.
                value = nn.Parameter(placed(tensor, dtype or own.dtype), train)
                setattr(model.get_submodule(parent), leaf, value)
    for name, low_ranks in added.items():
        base = model.get_submodule(name)
        assert isinstance(base, Linear | PackedLinear)
        _replace(model, name, AdaptedLinear(base, low_ranks, shared).train(base.training))
    model.adapters = shared
    return model


def _filled(model: Griffin, adapter: Adapter) -> Adapter:
    """Return an adapter with all its tensors: modules kept whole begin as the model's."""
    own = {
        key: model.get_parameter(key)
        for key in expected(adapter.config, model.config)
        if not key.endswith((A, B))
    }
    whole = replace(adapter, tensors={**own, **adapter.tensors})
    whole.check(model.config)
    return whole


def merge_into(adapter: Adapter, shape: GriffinConfig) -> Callable[[str, Tensor], Tensor]:
    """Return what turns each tensor of a model (its name, its value) into that of the merged one.

    For `checkpoints.convert(change=...)`. Raises ValueError for an adapter that does not fit.
    """
    adapter.check(shape)
    tensors, scale = adapter.tensors, adapter.config.scale

    def change(name: str, tensor: Tensor) -> Tensor:
        layer = name.removesuffix(".weight")
        if layer + A in tensors:
            return merged(tensor, tensors[layer + A], tensors[layer + B], scale)
        return tensors[name].to(tensor.dtype) if name in tensors else tensor

    return change


def adapter_of(model: Griffin, name: str, config: LoraConfig) -> Adapter:
    """Return the first adapter in a model as it now stands, its tensors the model's own."""
    tensors = {
        key: model.get_parameter(parameter_name(key)).detach()
        for key in expected(config, model.config)
    }
    return Adapter(name, config, tensors)


def parameter_name(key: str) -> str:
    """Return what a model with one adapter calls the parameter that is this tensor of it."""
    layer, _, leaf = key.rpartition(".")
    return f"{layer}.added.0.{leaf}" if key.endswith((A, B)) else key


def unadapt(model: Griffin) -> Griffin:
    """Take the adapters out of a model: its linear layers are what they were; return the model.

    Modules that an adapter kept whole keep its values: the model's own are not kept beside them.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLinear):
            _replace(model, name, module.base)
    model.adapters = Adapters()
    return model


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
