"""The trunk of a packed model in one call of the native module: the ops' bits, without the time
that Python takes between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.adapted import AdaptedLinear, Adapters, base_of
from griffin.model.attention import LocalAttentionBlock
from griffin.model.config import GriffinConfig
from griffin.model.layers import MLP
from griffin.model.packed import PackedEmbedding, PackedLinear
from griffin.model.recurrent import RecurrentBlock
from griffin.model.state import State
from griffin.model.trail import Trail
from griffin.ops import kernels, native


class _Held(NamedTuple):
    """A parameter or buffer as it was when its address was taken."""

    owner: dict[str, Any]
    name: str
    tensor: Tensor
    address: int


class FastTrunk:
    """The blocks of a model as the native module holds them: by addresses.

    Whoever uses it asks `current` first. Only `build` makes one.
    """

    def __init__(self, model: Any, trunk: Any) -> None:
        self._trunk = trunk
        self._config = model.config
        self._width, self._dtype = model.config.width, model.dtype
        self._adapters: Adapters = model.adapters
        self._children = [
            (parent._modules, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
        ]
        self._tensors = [
            _Held(table, name, tensor, tensor.data_ptr())
            for module in model.modules()
            for table in (module._parameters, module._buffers)
            for name, tensor in table.items()
            if tensor is not None
        ]

    def current(self, config: GriffinConfig) -> bool:
        """Return whether a model, of this config now, still is what was built.

        No layer was replaced, moved, given a hook or another type.
        """
        if config is not self._config:
            return False
        for table, name, child in self._children:
            if table.get(name) is not child or child._forward_hooks or child._forward_pre_hooks:
                return False
        return all(
            table.get(name) is tensor and tensor.data_ptr() == address
            for table, name, tensor, address in self._tensors
        )

    def takes(self, state: State | None) -> bool:
        """Return whether the tensors of a state of this model lie as the native module reads
        them."""
        for layer in () if state is None else state.layers:
            for t in layer:
                if not kernels.lies(t):
                    return False
        return True

    def __call__(self, tokens: Tensor, state: State) -> Tensor:
        """Read tokens (B, T) that go on where `state` ends, and change its layers' tensors in
        place.

        tokens: ids of the vocabulary, on the CPU.
        state:  of this model, so many rows and type, on the CPU, as `takes` has it; `pos` is left
                as it is. Griffin.trunk looks at both before.
        Returns hidden (B, T, D) after the final norm.
        KeyboardInterrupt in the middle leaves the state useless.
        """
        hidden = torch.empty(*tokens.shape, self._width, dtype=self._dtype)
        tokens, pos = kernels.laid(tokens.long(), state.pos)
        where = _addresses(state), hidden.data_ptr(), self._chosen(len(tokens))
        at = tokens.data_ptr(), *tokens.shape, pos.data_ptr()
        self._trunk.run(*at, *where, torch.get_num_threads())
        return hidden

    def with_trail(self, tokens: Tensor, pos: Tensor, state: State, trail: Trail) -> Tensor:
        """Read each row's tokens, and write the trail; otherwise as `__call__`.

        tokens: (n,), row after row, `trail.lengths` of each.
        pos:    (B,), where they begin. Returns hidden (n, D).
        """
        hidden = torch.empty(len(tokens), self._width, dtype=self._dtype)
        tokens, pos = kernels.laid(tokens, pos)
        trail.native = self._trunk.go_back
        ways = _addresses(state), trail.addresses() if trail.kept[-1] else []
        at = tokens.data_ptr(), trail.lengths, pos.data_ptr(), *ways, hidden.data_ptr()
        self._trunk.run_ahead(*at, self._chosen(len(trail.lengths)), torch.get_num_threads())
        return hidden

    def _chosen(self, rows: int) -> Sequence[int]:
        """Return the adapter that each row is read with; nothing where there are none."""
        return (self._adapters.chosen or [0] * rows) if self._adapters.names else ()


def _addresses(state: State) -> list[int]:
    return [t.data_ptr() for layer in state.layers for t in layer]


def build(model: Any) -> FastTrunk | None:
    """Return the trunk of a Griffin for the native module, or None where it cannot run there.

    It takes models on the CPU whose matrices are all packed and whose other weights are of one
    type, float32 or bfloat16, with gates, heads and convolutions of the sizes the kernels have room
    for, all of the shapes that the config says.
    """
    config, dtype, trunk = model.config, model.dtype, model.model
    embedding = trunk.embed_tokens
    # The first question, because it is asked before every call of the ops.
    if not native.built() or not isinstance(embedding, PackedEmbedding):
        return None
    if dtype not in (torch.float32, torch.bfloat16) or embedding.like.dtype != dtype:
        return None
    alike = all(t.dtype == dtype and kernels.lies(t) for t in trunk.parameters())
    placed = all(t.device.type == "cpu" for t in (*trunk.parameters(), *trunk.buffers()))
    if not (alike and placed):
        return None
    recurrent, attention = "recurrent" in config.block_types, "attention" in config.block_types
    gate = config.lru_width // config.num_gate_blocks
    if recurrent and (gate > native.LARGEST_GATE or config.conv_width > native.MOST_TAPS):
        return None
    if attention and (
        config.num_heads // config.num_kv_heads > native.MOST_QUERIES
        or config.head_dim > native.LARGEST_HEAD
    ):
        return None
    sizes = _sizes(config)
    kinds = {"recurrent": RecurrentBlock, "attention": LocalAttentionBlock}
    if (
        [type(block.temporal_block) for block in trunk.layers]
        != [kinds[kind] for kind in config.block_types]
        or embedding.in_features != config.width
        or embedding.out_features < config.vocab_size
        or trunk.final_norm.weight.shape != sizes["norm"]
    ):
        return None
    shape = native.module().Shape(
        width=config.width,
        lru_width=config.lru_width,
        mlp_width=config.mlp_width,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_width=config.head_dim,
        slots=config.attention_window_size,
        conv_width=config.conv_width,
        gate_blocks=config.num_gate_blocks,
    )
    frequencies = ops.rope_frequencies(config.rope_width, config.rope_theta)
    made = native.module().Trunk(
        type=native.TYPES[dtype],
        shape=shape,
        eps=config.rms_norm_eps,
        frequencies=frequencies.tolist() if attention else [],
        embedding=embedding.matrix(),
        scale=embedding.scale,
        final_norm=trunk.final_norm.weight.data_ptr(),
    )
    for block in trunk.layers:
        if not _add(made, block, sizes):
            return None
        _adapt(made, block, model.adapters)
    return FastTrunk(model, made)


Sizes = dict[str, tuple[int, ...]]
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def _sizes(config: GriffinConfig) -> Sizes:
    """Return the shape of every weight of a block, by its name in native/trunk.h."""
    width, lru, mlp = config.width, config.lru_width, config.mlp_width
    heads = config.num_kv_heads * config.head_dim
    gate = config.lru_width // config.num_gate_blocks
    sizes: Sizes = {
        "norm": (width,),
        "conv_weight": (lru, 1, config.conv_width),
        "linear_out": (width, lru),
        "down_proj": (width, mlp),
    }
    sizes |= dict.fromkeys(("conv_bias", "recurrent_param"), (lru,))
    for name in ("input_gate", "recurrent_gate"):
        sizes[f"{name}_weight"] = (config.num_gate_blocks, gate, gate)
        sizes[f"{name}_bias"] = (config.num_gate_blocks, gate)
    sizes |= dict.fromkeys(("linear_x", "linear_y"), (lru, width))
    sizes |= dict.fromkeys(("q_proj", "o_proj"), (width, width))
    sizes |= dict.fromkeys(("k_proj", "v_proj"), (heads, width))
    return sizes | dict.fromkeys(("gate_proj", "up_proj"), (mlp, width))


def _add(made: Any, block: Any, sizes: Sizes) -> bool:
    """Add a residual block; False if one of its matrices is not packed, or a weight is of another
    shape."""
    temporal, mlp, norm = block.temporal_block, block.mlp_block, block.temporal_pre_norm
    if isinstance(temporal, RecurrentBlock):
        unit, conv = temporal.rg_lru, temporal.conv_1d
        first = _weights(
            "RecurrentWeights",
            sizes,
            {name: getattr(temporal, name) for name in ("linear_x", "linear_y", "linear_out")},
            norm=norm.weight,
            conv_weight=conv.weight,
            conv_bias=conv.bias,
            input_gate_weight=unit.input_gate_weight,
            input_gate_bias=unit.input_gate_bias,
            recurrent_gate_weight=unit.recurrent_gate_weight,
            recurrent_gate_bias=unit.recurrent_gate_bias,
            recurrent_param=unit.recurrent_param,
        )
    elif isinstance(temporal, LocalAttentionBlock):
        layers = {name: getattr(temporal, name) for name in _ATTENTION}
        first = _weights("AttentionWeights", sizes, layers, norm=norm.weight)
    else:
        return False
    if not isinstance(mlp, MLP):
        return False
    layers = {name: getattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")}
    second = _weights("MlpWeights", sizes, layers, norm=block.channel_pre_norm.weight)
    if first is None or second is None:
        return False
    made.add(first, second)
    return True


def _weights(kind: str, sizes: Sizes, layers: dict[str, nn.Module], **plain: Tensor) -> Any:
    """Return a struct of native/trunk.h with packed matrices and the addresses of plain tensors.

    None if a matrix is not packed, they differ in format, or a weight is of another shape.
    """
    plainly = {name: base_of(layer) for name, layer in layers.items()}
    packed = {name: layer for name, layer in plainly.items() if type(layer) is PackedLinear}
    if len(packed) < len(layers) or len({layer.format for layer in packed.values()}) > 1:
        return None
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in packed.items()}
    shapes |= {name: tuple(tensor.shape) for name, tensor in plain.items()}
    if any(shape != sizes[name] for name, shape in shapes.items()):
        return None
    matrices = {name: layer.matrix() for name, layer in packed.items()}
    addresses = {name: tensor.data_ptr() for name, tensor in plain.items()}
    return getattr(native.module(), kind)(**matrices, **addresses)


def _adapt(made: Any, block: Any, adapters: Adapters) -> None:
    """Tell the trunk what adapters add to the layer that was added last."""
    temporal, mlp = block.temporal_block, block.mlp_block
    recurrent = isinstance(temporal, RecurrentBlock)
    names = ("linear_x", "linear_y", "linear_out") if recurrent else _ATTENTION
    layers = [getattr(temporal, name) for name in names]
    layers += [getattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")]
    for number, layer in enumerate(layers):
        if type(layer) is AdaptedLinear:
            added = [(0, 0, 0, 0.0)] * len(adapters.names)
            for index, low_rank in layer.low_ranks().items():
                a, b = low_rank.lora_A, low_rank.lora_B
                added[index] = (a.data_ptr(), b.data_ptr(), a.shape[0], low_rank.scale)
            made.adapt(number, added)
