"""One token of every running row as few launches: the model's blocks as a GPU's kernels take them.

Everything lies at a fixed place, so a step can be captured once and replayed: states are the slots'
own memory and are changed in place, and how many rows run is a number on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.adapted import base_of
from griffin.model.layers import Embedding, Linear
from griffin.model.packed import PackedWeight
from griffin.model.recurrent import RGLRU, CausalConv, RecurrentBlock
from griffin.model.state import AttentionState, LayerState, RecurrentState, State
from griffin.ops import Draw, DrawnTokens, Laid


class Stacked(NamedTuple):
    """The states of N rows, layers of a kind one behind the other, or what was kept of them.

    conv: (L, N, W-1, E), inputs of the convolutions. h: (L, N, E), float32 or wider.
    keys, values: (A, N, S, K, H), the rings; of what is kept (A, N, K, H), a slot of each.
    """

    conv: Tensor
    h: Tensor
    keys: Tensor
    values: Tensor


class _Block(NamedTuple):
    """A residual block's weights. conv, unit: of a recurrent one."""

    norm: Tensor
    into: Laid  # x and y of a recurrent block, or queries, keys and values
    conv: CausalConv | None
    unit: RGLRU | None
    out: Laid
    mlp_norm: Tensor
    gate_up: Laid
    down: Laid


class DecodeStep:
    """The decode step of a model over some slots.

    model: its weights are laid for the kernels here; plain ones then share their memory with it.
    state: the slots, all rows, changed in place by every step. Its layers must be those that
           `stacked` made.
    rows:  the most that run.
    Raises ValueError for a model with adapters, which a step does not add.
    """

    def __init__(self, model: Any, state: State, stacked: Stacked, rows: int) -> None:
        if model.adapters.names:
            raise ValueError("a model with adapters is not read by steps of a graph")
        config, trunk = model.config, model.model
        self.config, self.rows = config, rows
        self._state, self._stacked = state, stacked
        self._dtype, self._eps = model.dtype, config.rms_norm_eps
        self._embedding, self._scale = _lay([trunk.embed_tokens]), trunk.embed_tokens.scale
        tied = config.tie_embeddings
        self._head = self._embedding if tied else _lay([model.lm_head])
        self._norm = trunk.final_norm.weight.detach()
        self._blocks = [_block(block) for block in trunk.layers]
        device = state.pos.device
        self._turns = ops.rope_turns(config.rope_width, config.rope_theta).to(device)
        self._kept = Stacked(
            *(t.new_empty(len(t), rows, *t.shape[2:]) for t in stacked[:2]),
            *(t.new_empty(len(t), rows, *t.shape[3:]) for t in stacked[2:]),
        )
        self._before = torch.zeros(rows, dtype=torch.int64, device=device)
        self._rows_kept = 0

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept to go back by a token."""
        return sum(t.nbytes for t in self._kept) + self._before.nbytes

    def logits(self, tokens: Tensor, live: Tensor, out: Tensor | None = None) -> Tensor:
        """Let rows read one token each; return the logits (R, V) float32 after it, soft-capped.

        tokens: (R,) int64, of the first R slots. live: (1,) int32; rows from there on neither
                change nor have logits. out: where to write them; a new tensor if omitted.
        """
        count = len(tokens)
        kept, before = self._part(count), self._before[:count]
        ops.keep_before(self._stacked[2:], self._state.pos, kept[2:], before, live)
        units = zip(kept.conv, kept.h, strict=True)
        x = ops.look_up_rows(tokens, self._embedding, self._scale, self._dtype, live)
        for block, layer in zip(self._blocks, self._state.layers, strict=True):
            inner = ops.few_rows(x, block.into, norm=block.norm, eps=self._eps, live=live)
            if isinstance(layer, RecurrentState):
                y = self._unit(inner, block, layer, before, live, next(units))
            else:
                qkv = inner[:, None]
                y = ops.ring_attention(qkv, *layer, before, self._turns, live)[:, 0]
            x = ops.few_rows(y, block.out, residual=x, live=live, out=x)
            inner = ops.few_rows(
                x, block.gate_up, norm=block.mlp_norm, eps=self._eps, gated=True, live=live
            )
            x = ops.few_rows(inner, block.down, residual=x, live=live, out=x)
        return ops.few_rows(
            x,
            self._head,
            norm=self._norm,
            eps=self._eps,
            cap=self.config.logits_soft_cap or 0.0,
            live=live,
            out=out,
            out_dtype=torch.float32,
        )

    def draw(
        self, logits: Tensor, draw: Draw, live: Tensor, out: DrawnTokens | None = None
    ) -> DrawnTokens:
        """Choose a token for each row: `griffin.ops.draw_tokens`."""
        return ops.draw_tokens(logits, draw, live, out)

    def go_back(self, slot: int, row: int, rows: int) -> None:
        """Take the last step back for one row: its state is what it was before.

        slot: where the row lies now. row: the place it had in that step, of `rows` in all.
        """
        kept, pos = self._part(rows), self._state.pos
        pos[slot : slot + 1] = self._before[row : row + 1]
        for name, full, part in zip(self._stacked._fields, self._stacked, kept, strict=True):
            if name in ("conv", "h"):
                full[:, slot] = part[:, row]
            elif len(full):
                at = pos[slot : slot + 1] % full.shape[2]
                full[:, slot].index_copy_(1, at, part[:, row, None])

    def _part(self, rows: int) -> Stacked:
        """Return what is kept as tensors of so many rows, on the same memory."""
        return Stacked(
            *(
                t.flatten()[: t[:, :rows].numel()].view(len(t), rows, *t.shape[2:])
                for t in self._kept
            )
        )

    def _unit(
        self,
        xy: Tensor,
        block: _Block,
        layer: RecurrentState,
        before: Tensor,
        live: Tensor,
        kept: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Return gelu(y) * rg_lru(conv(x)), the layer's state moved on and kept as it was."""
        assert block.conv is not None and block.unit is not None
        x, y = xy.chunk(2, 1)
        conv, unit = block.conv, block.unit
        weights = conv.weight, conv.bias, *unit.gates(), unit.recurrent_param
        return ops.recurrent_step(x, y, *weights, before, *layer, live, kept)


def stacked(state: State) -> tuple[State, Stacked]:
    """Return a state of the same values whose layers of a kind lie in one tensor, and those
    tensors."""
    layers, rows = state.layers, len(state.pos)
    recurrent = [layer for layer in layers if isinstance(layer, RecurrentState)]
    attention = [layer for layer in layers if isinstance(layer, AttentionState)]
    like = layers[0][0]  # layers of a kind that there are none of are no bytes
    conv, h = _each(recurrent) or (like.new_empty(0, rows, 1, 1), like.new_empty(0, rows, 1))
    keys, values = _each(attention) or [like.new_empty(0, rows, 1, 1, 1)] * 2
    made: list[LayerState] = []
    for layer in layers:
        if isinstance(layer, RecurrentState):
            at = sum(isinstance(each, RecurrentState) for each in made)
            made.append(RecurrentState(conv[at], h[at]))
        else:
            at = sum(isinstance(each, AttentionState) for each in made)
            made.append(AttentionState(keys[at], values[at]))
    return State(state.pos, made), Stacked(conv, h, keys, values)


def _each(layers: Sequence[LayerState]) -> list[Tensor]:
    """Return the tensors of some layers of a kind, each kind of tensor in one; none of none."""
    return [torch.stack(each) for each in zip(*layers, strict=True)]


def _block(block: Any) -> _Block:
    temporal, mlp = block.temporal_block, block.mlp_block
    if isinstance(temporal, RecurrentBlock):
        into, out = [temporal.linear_x, temporal.linear_y], temporal.linear_out
        conv, unit = temporal.conv_1d, temporal.rg_lru
    else:
        into, out = [temporal.q_proj, temporal.k_proj, temporal.v_proj], temporal.o_proj
        conv = unit = None
    return _Block(
        block.temporal_pre_norm.weight.detach(),
        _lay(into),
        conv,
        unit,
        _lay([out]),
        block.channel_pre_norm.weight.detach(),
        _lay([mlp.gate_proj, mlp.up_proj]),
        _lay([mlp.down_proj]),
    )


def lay_weights(model: Any) -> None:
    """Lay a model's weights as steps read them, before there are any: on a GPU the layers then have
    parts of that, and nothing lies twice."""
    _lay([model.model.embed_tokens])
    if not model.config.tie_embeddings:
        _lay([model.lm_head])
    for block in model.model.layers:
        _block(block)


def stays_packed(device: torch.device) -> bool:
    """Return whether layers keep packed weights beside what is laid: native kernels read them."""
    return device.type == "cpu"


def _lay(layers: list[Any]) -> Laid:
    """Lay the matrices of some layers as one; plain ones, and on a GPU packed ones, then are views
    of it. What was laid before is taken as it lies."""
    layers = [base_of(layer) for layer in layers]
    biases = [getattr(layer, "bias", None) for layer in layers]
    packed = [layer for layer in layers if isinstance(layer, PackedWeight)]
    if packed:
        if packed[0].laid is not None:
            return packed[0].whole()
        laid = ops.lay([layer.packed for layer in packed], biases)
        if not stays_packed(laid.data.device):
            first = 0
            for layer in packed:
                layer.lie_in(laid, first)
                first += layer.out_features
        return laid
    plain = [layer for layer in layers if isinstance(layer, (Linear, Embedding))]
    laid = ops.lay([layer.weight.detach() for layer in plain], biases)
    if len(plain) > 1:
        parts = laid.data.split([len(layer.weight) for layer in plain])
        for layer, part in zip(plain, parts, strict=True):
            layer.weight = nn.Parameter(part, requires_grad=layer.weight.requires_grad)
    return laid
