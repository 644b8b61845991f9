"""The trunk of a packed model in one call of the native module: the ops' bits, without the time
that Python takes between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.attention import LocalAttentionBlock
from griffin.model.layers import MLP
from griffin.model.packed import PackedEmbedding, PackedLinear
from griffin.model.recurrent import RecurrentBlock
from griffin.model.state import State
from griffin.ops import native


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
        self._width, self._dtype = model.config.width, model.dtype
        one = State.zeros(model.config, 1, dtype=model.dtype, device="meta")
        self._layout = [(t.dtype, t.shape[1:]) for layer in one.layers for t in layer]
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

    def current(self) -> bool:
        """Return whether the model still is what was built.

        No layer was replaced, moved, given a hook or another type.
        """
        for table, name, child in self._children:
            if table.get(name) is not child or child._forward_hooks or child._forward_pre_hooks:
                return False
        return all(
            table.get(name) is tensor and tensor.data_ptr() == address
            for table, name, tensor, address in self._tensors
        )

    def fits(self, state: State | None) -> bool:
        """Return whether a state's tensors are as the native module takes them."""
        if state is None:
            return True
        tensors = [t for layer in state.layers for t in layer]
        return len(tensors) == len(self._layout) and all(
            t.dtype == dtype and t.shape[1:] == shape and t.is_contiguous() and t.is_cpu
            for t, (dtype, shape) in zip(tensors, self._layout, strict=True)
        )

    def __call__(self, tokens: Tensor, state: State) -> Tensor:
        """Read tokens (B, T) that go on where `state` ends, and change its layers' tensors in
        place.

        state: as `fits` takes it; `pos` is left as it is. Returns hidden (B, T, D) after the final
               norm.
        KeyboardInterrupt in the middle leaves the state useless.
        """
        hidden = torch.empty(*tokens.shape, self._width, dtype=self._dtype)
        layers = [address for layer in state.layers for address in native.addresses(*layer)]
        tokens, pos = tokens.long().contiguous(), state.pos.contiguous()
        where = layers, hidden.data_ptr(), torch.get_num_threads()
        self._trunk.run(tokens.data_ptr(), *tokens.shape, pos.data_ptr(), *where)
        return hidden


def build(model: Any) -> FastTrunk | None:
    """Return the trunk of a Griffin for the native module, or None where it cannot run there.

    It takes models on the CPU whose matrices are all packed and whose other weights are of one
    type, float32 or bfloat16, with gates, heads and convolutions of the sizes the kernels have room
    for.
    """
    config, dtype, trunk = model.config, model.dtype, model.model
    embedding = trunk.embed_tokens
    # The first question, because it is asked before every call of the ops.
    if not native.built() or not isinstance(embedding, PackedEmbedding):
        return None
    if dtype not in (torch.float32, torch.bfloat16) or embedding.like.dtype != dtype:
        return None
    alike = all(t.dtype == dtype and t.is_contiguous() for t in trunk.parameters())
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
        if not _add(made, block):
            return None
    return FastTrunk(model, made)


def _add(made: Any, block: Any) -> bool:
    """Add a residual block; False if one of its matrices is not packed."""
    temporal, mlp, norm = block.temporal_block, block.mlp_block, block.temporal_pre_norm
    if isinstance(temporal, RecurrentBlock):
        unit, conv = temporal.rg_lru, temporal.conv_1d
        first = _weights(
            "RecurrentWeights",
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
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        layers = {name: getattr(temporal, name) for name in names}
        first = _weights("AttentionWeights", layers, norm=norm.weight)
    else:
        return False
    if not isinstance(mlp, MLP):
        return False
    layers = {name: getattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")}
    second = _weights("MlpWeights", layers, norm=block.channel_pre_norm.weight)
    if first is None or second is None:
        return False
    made.add(first, second)
    return True


def _weights(kind: str, layers: dict[str, nn.Module], **plain: Tensor) -> Any:
    """Return a struct of native/trunk.h with packed matrices and the addresses of plain tensors.

    None if a matrix is not packed, or they differ in format.
    """
    packed = {name: layer for name, layer in layers.items() if type(layer) is PackedLinear}
    if len(packed) < len(layers) or len({layer.format for layer in packed.values()}) > 1:
        return None
    matrices = {name: layer.matrix() for name, layer in packed.items()}
    addresses = {name: tensor.data_ptr() for name, tensor in plain.items()}
    return getattr(native.module(), kind)(**matrices, **addresses)
