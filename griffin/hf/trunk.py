"""The trunk as transformers calls it: masks, caches and positions in, a Griffin's call inside."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from griffin.hf.cache import NAME, GriffinCache, one_cache
from griffin.hf.config import GriffinTextConfig, RecurrentGemmaConfig
from griffin.hf.padding import padding_of
from griffin.model import Griffin
from griffin.model.griffin import ResidualBlock, Trunk
from griffin.model.init import init_parameter

# What collators say for the kernels of others and position_ids say too.
_SAID = {
    *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"),
    *("num_items_in_batch",),
}


class CheckpointedBlock(GradientCheckpointingLayer, ResidualBlock):
    """A residual block that is computed again on the way back where gradient checkpointing asks."""


class GriffinPreTrainedModel(PreTrainedModel):
    """What the model with and without a head have in common."""

    config_class = GriffinTextConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CheckpointedBlock"]  # noqa: RUF012  # transformers declares it so
    # No cutting back: transformers refuses what guesses tokens and takes them back.
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw what a checkpoint does not hold."""
        names = {each: name for name, each in self.named_modules()}
        shape = self.config.shape()
        for name, parameter in module.named_parameters(recurse=False):
            if not getattr(parameter, "_is_hf_initialized", False):
                init_parameter(f"{names.get(module, 'new')}.{name}", parameter, shape)


class GriffinModel(GriffinPreTrainedModel):
    """A Griffin without its head.

    core: the Griffin that computes: these very modules, and a head where a causal model has lent
          it one. It is no submodule.
    """

    def __init__(self, config: GriffinTextConfig | RecurrentGemmaConfig) -> None:
        super().__init__(config)
        # Tied or not is transformers' to say: to the core the head is a matrix of its own.
        core = Griffin(config.shape().replace(tie_embeddings=False))
        if not core.head_weight.is_meta:  # drawn already
            for parameter in core.parameters():
                parameter._is_hf_initialized = True  # pyright: ignore[reportAttributeAccessIssue]
        object.__setattr__(self, "core", core)
        self.core: Griffin
        self.take(core.model)
        self.post_init()

    def take(self, trunk: Trunk) -> None:
        """Make the modules of a trunk this model's own."""
        self.embed_tokens, self.layers = trunk.embed_tokens, trunk.layers
        self.final_norm = trunk.final_norm
        for layer in self.layers:
            layer.__class__ = CheckpointedBlock
        self.core.model = cast(Trunk, self)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: GriffinCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache: GriffinCache | None = None,
        **others: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Read tokens and return what the head looks at.

        input_ids:       (B, T).
        attention_mask:  (B, T), or of all columns read so far; 0 at pads, which may stand anywhere.
                         A pad behind a token repeats that token's result.
        position_ids:    (B, T) or (1, T), each token's place in its document: a 0 begins one, and
                         nothing before it is seen. They go on where the cache ends if omitted.
        past_key_values: what was read before; it is changed to what was read after this call.
                         `cache` since transformers 5.24; either name will do.
        use_cache:       return one, new if none was given; the config's word if omitted, and not
                         while training.
        Raises ValueError for what this model does not take, naming it.
        """
        tokens = _tokens(input_ids, inputs_embeds, others)
        cache = one_cache(cache, past_key_values)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if cache is None and use_cache:
            cache = GriffinCache()
        state, read = (None, 0) if cache is None else (cache.state, cache.length)
        padding = padding_of(attention_mask, tokens, read)
        begin = None if state is None else state.pos
        places = None if position_ids is None else position_ids.to(tokens.device).expand_as(tokens)
        if padding is not None:
            moved, segment_pos = padding.tokens(tokens), padding.positions(begin, places)
        else:
            moved, segment_pos = tokens, None if _runs_on(places, begin) else places

        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        seen: list[Tensor] = []

        def watch(module: nn.Module, args: Any, out: Any) -> None:
            seen.append(out[0] if isinstance(out, tuple) else out)

        watched = (self.embed_tokens, *self.layers) if output_hidden_states else ()
        hooks = [module.register_forward_hook(watch) for module in watched]
        try:
            hidden, state = self.core.trunk(moved, state, segment_pos, donate=True)
        finally:
            for hook in hooks:
                hook.remove()
        if padding is not None:
            hidden = padding.spread(hidden, None if cache is None else cache.hidden)
            seen = [padding.spread(each, None) for each in seen]
        if cache is not None:
            cache.state, cache.length = state, read + tokens.shape[1]
            cache.hidden = hidden[:, -1].detach().clone()
        output = BaseModelOutputWithPast(
            last_hidden_state=cast(Any, hidden),
            hidden_states=cast(Any, (*seen[:-1], hidden)) if output_hidden_states else None,
            **cast(Any, {NAME: cache}),
        )
        return output if return_dict is not False else output.to_tuple()


class RecurrentGemmaModel(GriffinModel):
    """The same under transformers' own config."""

    config_class = RecurrentGemmaConfig


def _tokens(ids: Tensor | None, embeds: Tensor | None, others: dict[str, Any]) -> Tensor:
    """Return the ids; ValueError where something else is asked for."""
    if embeds is not None:
        raise ValueError(
            "inputs_embeds is not taken: this model reads input_ids (prompt and prefix tuning,"
            " which learn embeddings, do not run on it; LoRA does)"
        )
    if ids is None:
        raise ValueError("give input_ids (B, T)")
    asked = [name for name, value in others.items() if value is not None and value is not False]
    if unknown := [name for name in asked if name not in _SAID]:
        raise ValueError(f"forward knows nothing of {', '.join(unknown)}; leave it out")
    if ids.dim() == 2 and not ids.shape[1]:
        raise ValueError(
            "there is no token to read: with past_key_values give `generate` the ids of the whole"
            " text, or new ids and an attention_mask as long as what was read and they together"
        )
    return ids


def _runs_on(places: Tensor | None, begin: Tensor | None) -> bool:
    """Return whether positions (B, T) say no more than that tokens follow those before."""
    if places is None:
        return True
    steps = torch.arange(places.shape[1], device=places.device)
    follow = steps.expand_as(places) if begin is None else begin[:, None] + steps
    return torch.equal(places, follow)
