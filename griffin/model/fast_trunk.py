"""The trunk of a packed model in one call of the native module: the ops' bits, and no time lost
between."""

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
    """The blocks of a model as the native module holds them: addresses, so whoever uses it asks
    `current`.

    Only `build` makes one.
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
        """Return whether the model still is what was built: no layer replaced, watched, moved or
        re-typed."""
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
    """Return the trunk of a Griffin for the native module, or None where ops have to be called one
    by one.

    It takes models on the CPU whose matrices are all packed and whose other weights are of one
    type, float32 or bfloat16, with gates, heads and convolutions of the sizes the kernels have room
    for.
    """
    config, dtype, trunk = model.config, model.dtype, model.model
    embedding = trunk.embed_tokens
    if not native.built() or not isinstance(
        embedding, PackedEmbedding
    ):  # asked before every call of the ops
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
    sizes = [
        config.width,
        config.lru_width,
        config.mlp_width,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        config.attention_window_size,
        config.conv_width,
        config.num_gate_blocks,
    ]
    made = native.module().Trunk(
        native.TYPES[dtype],
        sizes,
        config.rms_norm_eps,
        ops.rope_frequencies(config.rope_width, config.rope_theta).tolist() if attention else [],
        embedding.matrix(),
        embedding.scale,
        trunk.final_norm.weight.data_ptr(),
    )
    for block in trunk.layers:
        if not _add(made, block):
            return None
    return FastTrunk(model, made)


def _add(made: Any, block: Any) -> bool:
    """Add a residual block; False if one of its matrices is not packed."""
    temporal, mlp = block.temporal_block, block.mlp_block
    norm = block.temporal_pre_norm.weight.data_ptr()
    if isinstance(temporal, RecurrentBlock):
        unit, conv = temporal.rg_lru, temporal.conv_1d
        matrices = _matrices(temporal.linear_x, temporal.linear_y, temporal.linear_out)
        weights = (
            conv.weight,
            conv.bias,
            unit.input_gate_weight,
            unit.input_gate_bias,
            unit.recurrent_gate_weight,
            unit.recurrent_gate_bias,
            unit.recurrent_param,
        )
        if matrices is not None:
            made.add_recurrent(norm, matrices, native.addresses(*weights))
    elif isinstance(temporal, LocalAttentionBlock):
        matrices = _matrices(temporal.q_proj, temporal.k_proj, temporal.v_proj, temporal.o_proj)
        if matrices is not None:
            made.add_attention(norm, matrices)
    else:
        return False
    rest = _matrices(mlp.gate_proj, mlp.up_proj, mlp.down_proj) if isinstance(mlp, MLP) else None
    if matrices is None or rest is None:
        return False
    made.add_mlp(block.channel_pre_norm.weight.data_ptr(), rest)
    return True


def _matrices(*layers: nn.Module) -> list[Any] | None:
    """Return the layers' matrices; None if one is not packed, or they differ in format."""
    packed = [layer for layer in layers if type(layer) is PackedLinear]
    if len(packed) < len(layers) or len({layer.format for layer in packed}) > 1:
        return None
    return [layer.matrix() for layer in packed]
