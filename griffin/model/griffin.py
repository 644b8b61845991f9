"""The whole model, Griffin and Hawk alike: the config's block types are the only difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from griffin import ops
from griffin.model.adapted import Adapters
from griffin.model.attention import LocalAttentionBlock
from griffin.model.config import BlockType, GriffinConfig
from griffin.model.fast_trunk import FastTrunk, build
from griffin.model.init import init_weights
from griffin.model.layers import MLP, Embedding, Linear, RMSNorm
from griffin.model.left import Left
from griffin.model.marks import Marks
from griffin.model.packed import PackedWeight, Screen
from griffin.model.readable import check_ids, check_positions, looks_first, readable
from griffin.model.recurrent import RecurrentBlock
from griffin.model.state import AttentionState, LayerState, RecurrentState, State, StateShape
from griffin.model.trail import Step, Trail, steps_of
from griffin.ops.positions import WHOLE


class ResidualBlock(nn.Module):
    """x + temporal block of the norm of x, then the same with the MLP. Griffin, section 2.1."""

    def __init__(self, config: GriffinConfig, kind: BlockType) -> None:
        super().__init__()
        self.temporal_pre_norm = RMSNorm(config.width, config.rms_norm_eps)
        self.temporal_block = (
            RecurrentBlock(config) if kind == "recurrent" else LocalAttentionBlock(config)
        )
        self.channel_pre_norm = RMSNorm(config.width, config.rms_norm_eps)
        self.mlp_block = MLP(config)

    def forward(
        self,
        x: Tensor,
        segment_pos: Tensor,
        window: ops.Window | None,
        rope: tuple[Tensor, Tensor] | None,
        state: LayerState | None,
        left: Left | None = None,
        marks: Marks | None = None,
    ) -> tuple[Tensor, LayerState]:
        inner, x = self.temporal_pre_norm.after(x)
        after: LayerState
        if isinstance(self.temporal_block, RecurrentBlock):
            before = cast(RecurrentState | None, state)
            y, after = self.temporal_block(inner, segment_pos, before, left, marks)
        else:
            assert window is not None and rope is not None
            before = cast(AttentionState | None, state)
            y, after = self.temporal_block(inner, window, rope, before, left, marks)
        inner, x = self.channel_pre_norm.after(x, y)
        return x + self.mlp_block(inner), after

    def follow(
        self, x: Tensor, steps: Sequence[Step], state: LayerState, trail: Trail, number: int
    ) -> Tensor:
        """Read a call's tokens x (n, 1, D) step by step, as the temporal block does."""
        inner, x = self.temporal_pre_norm.after(x)
        y = cast(Any, self.temporal_block).follow(inner, steps, state, trail, number)
        inner, x = self.channel_pre_norm.after(x, y)
        return x + self.mlp_block(inner)


class Trunk(nn.Module):
    """Embedding, blocks and final norm, under the names that checkpoints give them."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config)
        self.layers = nn.ModuleList(ResidualBlock(config, kind) for kind in config.block_types)
        self.final_norm = RMSNorm(config.width, config.rms_norm_eps)


class Griffin(nn.Module):
    """A Griffin language model. Its state dict is a Hugging Face RecurrentGemma checkpoint.

    Built with initial values as in the reference code, or without any under `torch.device("meta")`.
    keep_every: for gradients, 0 keeps all that they need; n keeps what goes into every n-th block,
                and computes the rest again. The gradients are the same, to the bit.
    by_graphs:  engines step it by graphs where kernels serve it (`step_kernels`); False never.
    """

    keep_every = 0
    by_graphs = True

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.width, config.vocab_size, bias=False)
        self.screen: Screen | None = None  # griffin.quant.add_screen puts one in
        if not self.head_weight.is_meta:
            init_weights(self, config)
        self.adapters = Adapters()  # griffin.adapters.adapt puts some in
        self._fast: FastTrunk | None = None
        self._states: tuple[GriffinConfig, torch.dtype, StateShape] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies and pickles what holds addresses; it is built anew when needed."""
        return self.__dict__ | {"_fast": None}

    @property
    def head_weight(self) -> Tensor:
        """The (V, D) matrix that turns hidden states into logits; a packed one unpacked anew."""
        return self._head_layer.weight

    @property
    def head(self) -> Tensor | ops.Packed:
        """The (V, D) matrix that turns hidden states into logits, as it lies."""
        layer: nn.Module = self._head_layer
        return layer.packed if isinstance(layer, PackedWeight) else self._head_layer.weight

    @property
    def _head_layer(self) -> Embedding | Linear:
        return self.model.embed_tokens if self.config.tie_embeddings else self.lm_head

    @property
    def dtype(self) -> torch.dtype:
        return self.model.final_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.model.final_norm.weight.device

    @property
    def alike(self) -> bool:
        """Whether tokens read together have the bits of tokens read alone, and cost less."""
        return self._fast_trunk() is not None

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        segment_pos: Tensor | None = None,
        *,
        donate: bool = False,
    ) -> tuple[Tensor, State]:
        """Read tokens and return the logits after each of them: `trunk`, then `unembed`."""
        hidden, state = self.trunk(tokens, state, segment_pos, donate=donate)
        return self.unembed(hidden), state

    def trunk(
        self,
        tokens: Tensor,
        state: State | None = None,
        segment_pos: Tensor | None = None,
        *,
        donate: bool = False,
        left: Left | None = None,
        marks: Marks | None = None,
        adapters: Sequence[int] | None = None,
    ) -> tuple[Tensor, State]:
        """Read tokens and return what the head looks at.

        tokens:      (B, T) integers below V; T may differ from call to call.
        state:       what was read before, from an earlier call; nothing if omitted.
        segment_pos: (B, T) int64, each token's position in its document. 0 starts a document:
                     nothing before it is seen. Negative: left padding, which leaves a row's state
                     untouched; its hidden values mean nothing. Otherwise one more than the token
                     before, or state.pos at the first. If omitted, the rows go on where `state`
                     ends.
        donate:      give `state` up; it cannot be used again.
        left:        the tokens are a piece of longer rows, and the blocks ask `left` for their
                     states before it; then `state` is that before the rows, but for its pos, which
                     is the piece's first positions.
        marks:       without gradients, and for one row that goes on: filled with the states after
                     some of its tokens. The row is then read by the ops, packed weights too.
        adapters:    of each row the adapter that it is read with, by its place in
                     `self.adapters.names`, -1 for none; the first for all if omitted.
        Returns hidden (B, T, D) after the final norm, and the state after the last token. `state`
        itself is never changed. Raises ValueError, before anything is read or written, for a state
        of another model, type, batch or device, tokens that are no whole numbers, and, where the
        tensors are on the CPU, ids out of range, positions that do not follow, and any beyond 2^53.
        Nobody waits for another device to look: there the hidden values of such a token's row are
        NaN, from that token on at the latest; other rows do not notice.
        """
        if left is not None and (state is None or segment_pos is None):
            raise ValueError("a piece of a row is read with its positions and a state")
        tokens = self._check(tokens, state)
        if marks is not None:
            marks.check(tokens, segment_pos)
        with self.adapters.reading(adapters, len(tokens)):
            return self._read(tokens, state, segment_pos, donate, left, marks)

    def trunk_with_trail(
        self,
        tokens: Tensor,
        lengths: Sequence[int],
        state: State,
        adapters: Sequence[int] | None = None,
    ) -> tuple[Tensor, State, Trail]:
        """Read several tokens of each row, and keep what it takes to go back to any of them.

        tokens:   (n,), the first row's, then the second's, and so on, each going on where `state`
                  ends.
        lengths:  of each row, 1 up to as many as a ring has slots; n together. No product is spent
                  on what rows lack.
        state:    given up, and changed in place where it lies.
        adapters: as in `trunk`.
        Returns hidden (n, D) after the final norm, the state after all tokens, and the trail. Each
        token has the bits it has when it is read alone. Without gradients. Raises ValueError as
        `trunk` does, and for lengths that do not fit.
        """
        most = self.config.attention_window_size
        whole = tokens.dim() == 1 and sum(lengths) == len(tokens)
        if not (whole and all(1 <= length <= most for length in lengths)):
            raise ValueError(
                f"lengths must be 1 to {most} and {tuple(tokens.shape)} together, not"
                f" {list(lengths)}"
            )
        tokens = self._check(tokens[None], None)[0]
        state.check(StateShape.of(self.config, self.dtype), batch=len(lengths))
        trail = Trail(self.config, lengths, state.pos.tolist(), self.dtype, self.device)
        fast = self._fast_trunk()
        pos, layers = state.consume()
        state = State(pos + torch.tensor(lengths, device=pos.device), layers)
        if fast is not None and fast.takes(state):
            with self.adapters.reading(adapters, len(lengths)):
                return fast.with_trail(tokens, pos, state, trail), state, trail
        steps = list(steps_of(trail, self.dtype, self.device))
        chosen = adapters and [a for a, n in zip(adapters, lengths, strict=True) for _ in range(n)]
        count = Counter[type[LayerState]]()
        with self.adapters.reading(chosen, len(tokens)):
            x = self.model.embed_tokens(tokens[:, None])
            for block, layer in zip(self.model.layers, layers, strict=True):
                x = cast(Any, block).follow(x, steps, layer, trail, count[type(layer)])
                count[type(layer)] += 1
        return self.model.final_norm(x)[:, 0], state, trail

    def _read(
        self,
        tokens: Tensor,
        state: State | None,
        segment_pos: Tensor | None,
        donate: bool,
        left: Left | None,
        marks: Marks | None,
    ) -> tuple[Tensor, State]:
        given, runs_on = segment_pos, segment_pos is None
        fast = self._fast_trunk() if runs_on and marks is None else None
        if fast is not None and fast.takes(state):
            state = self._own(state, tokens.shape[0], donate)
            return fast(tokens, state), State(state.pos + tokens.shape[1], state.layers)
        pos = None if state is None else state.pos
        if segment_pos is None:
            steps = torch.arange(tokens.shape[1], device=tokens.device)
            segment_pos = steps.expand_as(tokens) if pos is None else pos[:, None] + steps
        else:
            check_positions(tokens, segment_pos, pos)
        marred = None
        if not looks_first(tokens.device):
            tokens, marred = readable(tokens, given, pos, self.config.vocab_size)
        layers = None if state is None else state.consume()[1] if donate else state.layers
        window = rope = None
        if "attention" in self.config.block_types:
            size = self.config.attention_window_size
            window = ops.plan_window(segment_pos, size, pos, runs_on, in_place=donate)
            rope = ops.rope_table(
                segment_pos.clamp_min(0), self.config.rope_width, self.config.rope_theta, self.dtype
            )
        x = self.model.embed_tokens(tokens)
        if marred is not None:
            x = x.masked_fill(marred[:, :, None], torch.nan)
        x, after = self._blocks(x, segment_pos, window, rope, layers, left, marks)
        last = segment_pos[:, -1]
        pos = torch.where(last < 0, 0 if pos is None else pos, last + 1)
        return self.model.final_norm(x), State(pos, after)

    def tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Return rows of ids as calls take them, (B, T) int64 on the model's device."""
        return ops.upload(ids, self.device, torch.int64)

    def _blocks(
        self,
        x: Tensor,
        segment_pos: Tensor,
        window: ops.Window | None,
        rope: tuple[Tensor, Tensor] | None,
        layers: Sequence[LayerState] | None,
        left: Left | None,
        marks: Marks | None,
    ) -> tuple[Tensor, list[LayerState]]:
        """Run the blocks; with gradients, `keep_every` of them at a time are run twice."""
        states = list(layers or ())
        size = self.keep_every if torch.is_grad_enabled() else 0
        if not size:
            return _run(self.model.layers, x, segment_pos, window, rope, states, left, marks)
        chosen = self.adapters.chosen

        def run(*given: Any) -> tuple[Tensor, list[LayerState]]:
            # In the backward pass the call that chose adapters is over.
            with self.adapters.reading(chosen, len(segment_pos)):
                return _run(*given)

        after: list[LayerState] = []
        for first in range(0, len(self.model.layers), size):
            part = slice(first, first + size)
            blocks, before = self.model.layers[part], states[part]
            # What dropout leaves out is drawn again from the same state of torch's generator.
            given = (blocks, x, segment_pos, window, rope, before, left)
            x, made = checkpoint(run, *given, use_reentrant=False)
            after += made
        return x, after

    def unembed(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., D) into logits (..., V), soft-capped, in float32 or wider."""
        tied = self.config.tie_embeddings
        logits = self.model.embed_tokens.unembed(hidden) if tied else self.lm_head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if cap := self.config.logits_soft_cap:
            logits = ops.soft_cap(logits, cap)
        return logits

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        if name in ("generate", "chat"):
            raise AttributeError(
                f"a Griffin has no {name}: it is the model alone, (tokens, state) -> (logits,"
                f" state); griffin.load(...).{name} takes a text"
            )
        return super().__getattr__(name)

    def _fast_trunk(self) -> FastTrunk | None:
        """Return the native path through the whole trunk, where it gives what the ops would."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not ops.unforced():
            return None
        if self._fast is None or not self._fast.current(self.config):
            fast = build(self)
            # A new one may be no better: a layer has a hook, which the native path would not call.
            self._fast = fast if fast is not None and fast.current(self.config) else None
        return self._fast

    def _own(self, state: State | None, rows: int, donate: bool) -> State:
        """Return a state that may be changed in place."""
        if state is None:
            return State.zeros(self.config, rows, dtype=self.dtype)
        return State(*state.consume()) if donate else state.clone()

    def _check(self, tokens: Tensor, state: State | None) -> Tensor:
        """Return tokens as int64; ValueError for what `trunk` cannot read."""
        if not isinstance(tokens, Tensor):
            raise ValueError(
                f"tokens are a {type(tokens).__name__}; give a tensor (B, T), such as"
                " torch.tensor([[2, 651]])"
            )
        if tokens.dim() != 2 or tokens.shape[1] == 0 or tokens.dtype not in WHOLE:
            raise ValueError(
                f"tokens must be (B, T) integers with T > 0, not {tuple(tokens.shape)}"
                f" {tokens.dtype}"
            )
        device = self.device
        if tokens.device != device:
            raise ValueError(
                f"tokens lie on {tokens.device}, the model on {device}; tokens.to(model.device)"
                " moves them"
            )
        tokens = tokens.long()
        if looks_first(device):
            check_ids(tokens, self.config.vocab_size)
        if State.is_one(state):
            (rows, steps), dtype = tokens.shape, self.dtype
            if device.type != "meta" and torch.is_autocast_enabled(device.type) and state.layers:
                # Then states come out in the type it asks for, and may go in again.
                own = state.layers[0][0].dtype
                dtype = own if own == torch.get_autocast_dtype(device.type) else dtype
            held = self._states
            if held is None or held[0] is not self.config or held[1] != dtype:
                shape = StateShape.of(self.config, dtype)
                self._states = held = (self.config, dtype, shape)
            held[2].check(state.pos, state.layers, batch=rows, device=device, steps=steps)
        return tokens


def _run(
    blocks: Iterable[nn.Module],
    x: Tensor,
    segment_pos: Tensor,
    window: ops.Window | None,
    rope: tuple[Tensor, Tensor] | None,
    states: Sequence[LayerState],
    left: Left | None,
    marks: Marks | None = None,
) -> tuple[Tensor, list[LayerState]]:
    after: list[LayerState] = []
    for number, block in enumerate(blocks):
        state = states[number] if states else None
        x, layer = block(x, segment_pos, window, rope, state, left, marks)
        after.append(layer)
    return x, after
