"""The model with its head: logits, loss, `generate`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from griffin.hf.cache import NAME, GriffinCache
from griffin.hf.config import GriffinTextConfig, RecurrentGemmaConfig, config_of
from griffin.hf.trunk import GriffinModel, GriffinPreTrainedModel
from griffin.llm import LLM
from griffin.model import Griffin
from griffin.model.layers import Linear
from griffin.model.packed import PackedEmbedding, PackedLinear, packed_format
from griffin.train.loss import chunked_cross_entropy

# A type checker would have a model be more than it is.
_Generating: Any = GenerationMixin


class GriffinForCausalLM(GriffinPreTrainedModel, _Generating):
    """A Griffin language model for transformers, PEFT, TRL and lm-eval.

    Its state dict is a Hugging Face RecurrentGemma checkpoint.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    accepts_loss_kwargs = True  # num_items_in_batch, from transformers' Trainer

    def __init__(self, config: GriffinTextConfig | RecurrentGemmaConfig) -> None:
        super().__init__(config)
        self.model = GriffinModel(config)
        self.lm_head: nn.Module = self.model.core.lm_head
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: GriffinCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        shift_labels: Tensor | None = None,
        skip_logits: bool | None = None,
        cache: GriffinCache | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read tokens and return the logits after them, and the loss where there are labels.

        labels:             (B, T), the ids themselves, -100 where a token is not to be predicted.
        shift_labels:       (B, T), each token's next one, in their place.
        num_items_in_batch: what the sum of the losses is divided by; the number of targets if
                            omitted.
        logits_to_keep:     how many of the last columns get logits, 0 for all; or which.
        skip_logits:        leave logits None; done while training on labels unless it is False,
                            because the loss is taken in tiles of the vocabulary and needs none.
        The other arguments, and the errors, are those of GriffinModel.
        """
        read = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            **others,
        )
        assert isinstance(read, BaseModelOutputWithPast) and read.last_hidden_state is not None
        hidden: Tensor = read.last_hidden_state
        loss = logits = None
        if labels is not None and shift_labels is None:
            shift_labels = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
        if shift_labels is not None:
            loss = self._loss(hidden, shift_labels.to(hidden.device), num_items_in_batch)
        if skip_logits is None:
            skip_logits = self.training and loss is not None
        if not skip_logits:
            whole = isinstance(logits_to_keep, int)
            logits = self._logits(
                hidden[:, slice(-logits_to_keep, None) if whole else logits_to_keep]
            )
        output = CausalLMOutputWithPast(
            loss=cast(Any, loss),
            logits=cast(Any, logits),
            hidden_states=read.hidden_states,
            **cast(Any, {NAME: read.get(NAME)}),
        )
        return output if return_dict is not False else output.to_tuple()

    def _logits(self, hidden: Tensor) -> Tensor:
        core = self.model.core
        core.lm_head = cast(Linear, self.lm_head)  # as it is now: PEFT may have wrapped it
        return core.unembed(hidden)

    def _loss(self, hidden: Tensor, targets: Tensor, count: Tensor | int | None) -> Tensor:
        """Return the negative log-likelihood of targets (B, T), -100 left out, over their count."""
        mask, head = targets != -100, self.lm_head
        if isinstance(head, nn.Linear) and type(head) in (Linear, nn.Linear) and head.bias is None:
            dtype, device = hidden.dtype, hidden.device.type
            if torch.is_autocast_enabled(device):
                dtype = torch.get_autocast_dtype(device)
            cap = self.model.core.config.logits_soft_cap
            nats, _ = chunked_cross_entropy(hidden, head.weight, targets, mask, cap, dtype)
        else:
            logits = self._logits(hidden[mask])
            nats = nn.functional.cross_entropy(logits, targets[mask], reduction="sum")
        if count is None:
            count = mask.sum().clamp(min=1)
        return nats / (count.to(nats.device) if isinstance(count, Tensor) else count)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the inputs of a step of `generate`, without the positions that it counts: behind
        padding on the right they are wrong, and mask and cache tell them."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        inputs.pop("position_ids", None)
        return inputs

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any
    ) -> Any:
        """Give `generate` a cache of ours; ValueError where another kind is asked for."""
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={kind!r} is not for this model, whose state has one fixed"
                " size; leave it out"
            )
        generation_config.cache_implementation = None
        if generation_config.use_cache and model_kwargs.get(NAME) is None:
            model_kwargs[NAME] = GriffinCache()
        return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Give the model more or fewer ids, as transformers does."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        core = self.model.core
        core.config = core.config.replace(vocab_size=self.config.vocab_size)
        return embeddings

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Tie the head where the config says so; packed weights are one already."""
        if packed_format(self) is None:
            super().tie_weights(*args, **kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write the model as transformers does; ValueError where its weights lie packed."""
        if format := packed_format(self):
            raise ValueError(
                f"this model's weights lie packed for inference ({format}); save one that"
                " from_pretrained has read, or write a quantized folder with `griffin quantize`"
            )
        super().save_pretrained(save_directory, *args, **kwargs)


class RecurrentGemmaForCausalLM(GriffinForCausalLM):
    """The same under transformers' own config and name."""

    config_class = RecurrentGemmaConfig


def from_griffin(source: LLM | Griffin) -> GriffinForCausalLM:
    """Return a transformers model over the weights of a loaded one, which both then share.

    source: what griffin.load or griffin.load_model returned. bfloat16 on a CPU comes packed for the
            kernels from griffin.load, and int8 and int4 from either: the fastest way to generate.
            `generate` ends where an LLM's answers end.
    """
    griffin = source.model if isinstance(source, LLM) else source
    config = config_of(griffin)
    kind = (
        RecurrentGemmaForCausalLM
        if isinstance(config, RecurrentGemmaConfig)
        else GriffinForCausalLM
    )
    with torch.device("meta"):
        model = kind(config)
    embedding = griffin.model.embed_tokens
    if not griffin.config.tie_embeddings:
        model.lm_head = griffin.lm_head
    elif isinstance(embedding, PackedEmbedding):
        model.lm_head = PackedLinear(embedding.packed, None, wide=True)  # the same bytes
    else:
        model.lm_head.weight = embedding.weight
    model.model.take(griffin.model)
    if isinstance(source, LLM) and model.generation_config is not None:
        model.generation_config.eos_token_id = sorted(source.stop_ids)
    return model.train(griffin.training)
