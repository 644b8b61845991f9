"""A model with an adapter in its linear layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from griffin import ops
from griffin.adapters.adapter import A, Adapter, B, expected
from griffin.adapters.config import LoraConfig
from griffin.model import Griffin, GriffinConfig
from griffin.model.layers import Linear
from griffin.model.packed import PackedLinear


class AdaptedLinear(nn.Module):
    """A linear layer and what an adapter adds to it: base(x) + scale * (x A^T) B^T.

    base is the layer as it was, packed or not; lora_A (rank, I) and lora_B (O, rank) are this
    layer's. What is added is computed in their type, and added in that of base's result.
    """

    def __init__(
        self, base: nn.Module, lora_a: Tensor, lora_b: Tensor, scale: float, dropout: float
    ) -> None:
        super().__init__()
        self.base = base
        self.lora_A, self.lora_B = nn.Parameter(lora_a), nn.Parameter(lora_b)
        self.scale, self.dropout = scale, dropout

    @property
    def in_features(self) -> int:
        return self.lora_A.shape[1]

    @property
    def out_features(self) -> int:
        return self.lora_B.shape[0]

    @property
    def weight(self) -> Tensor:
        """The (O, I) matrix of base and adapter together, made anew each time: for tools."""
        return merged(self.base.weight, self.lora_A, self.lora_B, self.scale)  # pyright: ignore[reportArgumentType]

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias  # pyright: ignore[reportReturnType]

    def forward(self, input: Tensor) -> Tensor:
        y = self.base(input)
        x = input.to(self.lora_A.dtype)
        if self.dropout and self.training:
            x = functional.dropout(x, self.dropout)
        added = ops.linear(ops.linear(x, self.lora_A), self.lora_B)
        return y + (added * self.scale).to(y.dtype)

    def extra_repr(self) -> str:
        return f"rank={self.lora_A.shape[0]}, scale={self.scale:g}"


def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return W + scale * B A, formed in float32 or wider, in W's type."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    added = (b.detach().to(wide) @ a.detach().to(wide)).mul_(scale)
    return added.add_(weight.detach().to(wide)).to(weight.dtype)


def adapt(
    model: Griffin, adapter: Adapter, dtype: torch.dtype | None = None, *, train: bool = False
) -> Griffin:
    """Put an adapter into a model, whose other weights stay the same objects; return the model.

    dtype: of the adapter's matrices; the model's if omitted. Modules that the adapter keeps whole
           take its values, or keep the model's where it has none yet (a new one).
    train: gradients are for the adapter's parameters, and for no other, and there is dropout;
           otherwise neither.
    Raises ValueError, and changes nothing, for an adapter that does not fit, and for a model that
    has one already.
    """
    if any(isinstance(module, AdaptedLinear) for module in model.modules()):
        raise ValueError("this model has an adapter already; take it out with unadapt(model)")
    wanted = expected(adapter.config, model.config)
    own = {key: model.get_parameter(key) for key in wanted if not key.endswith((A, B))}
    given = {**own, **adapter.tensors}
    Adapter(adapter.name, adapter.config, given).check(model.config)
    kind = dtype or model.dtype
    if train:
        model.requires_grad_(False)

    def placed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.detach().to(model.device, dtype, copy=True)

    for key in wanted:
        if key.endswith(A):
            name = key.removesuffix(A)
            base = model.get_submodule(name)
            assert isinstance(base, Linear | PackedLinear)
            matrices = (placed(given[key], kind), placed(given[name + B], kind))
            # A model that was loaded is in training mode; what answers leaves nothing out.
            dropout = adapter.config.dropout if train else 0.0
            new = AdaptedLinear(base, *matrices, adapter.config.scale, dropout)
            new.lora_A.requires_grad_(train)
            new.lora_B.requires_grad_(train)
            _replace(model, name, new.train(base.training))
    for key, parameter in own.items():
        with torch.no_grad():
            parent, _, leaf = key.rpartition(".")
            value = nn.Parameter(placed(given[key], parameter.dtype), train)
            setattr(model.get_submodule(parent), leaf, value)
    return model


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
    """Return the adapter in a model as it now stands, its tensors the model's own."""
    tensors: dict[str, Tensor] = {}
    for key in expected(config, model.config):
        layer, _, leaf = key.rpartition(".")
        tensors[key] = getattr(model.get_submodule(layer), leaf).detach()
    return Adapter(name, config, tensors)


def unadapt(model: Griffin) -> Griffin:
    """Take the adapter out of a model: its linear layers are what they were; return the model.

    Modules that the adapter kept whole keep its values: the model's own are not kept beside them.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLinear):
            _replace(model, name, module.base)
    return model


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
