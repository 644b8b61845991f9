"""The configs by which transformers knows our models: its own, and one for shapes it has not."""

from __future__ import annotations

from typing import Any

import transformers

from griffin.checkpoints.config_json import HUGGINGFACE, OURS, parse_config, to_config_json
from griffin.checkpoints.quantization_config import parse_quantization
from griffin.model import Griffin, GriffinConfig


class _Shaped:
    """What transformers and its friends ask of either config."""

    logits_soft_cap: float

    @property
    def final_logit_softcapping(self) -> float | None:
        """The soft cap by the name that TRL's losses look for; None where there is none."""
        return self.logits_soft_cap or None

    def shape(self) -> GriffinConfig:
        """Return what the model computes; ValueError for fields that ask for anything else."""
        assert isinstance(self, transformers.PreTrainedConfig)
        fields, name = self.to_dict(), self.name_or_path or type(self).__name__
        if found := parse_quantization(fields, name):
            raise ValueError(
                f"{name} is quantized ({found.format}); from_pretrained reads weights as they are:"
                f" griffin.hf.from_griffin(griffin.load({name!r})) runs it"
            )
        return parse_config(fields, name)[0]


class RecurrentGemmaConfig(_Shaped, transformers.RecurrentGemmaConfig):
    """transformers' own fields of a RecurrentGemma, under its own name."""

    model_type = HUGGINGFACE


class GriffinTextConfig(_Shaped, transformers.PreTrainedConfig):
    """The fields of a GriffinConfig, for shapes that transformers' RecurrentGemma cannot express.

    hidden_size, num_attention_heads, num_key_value_heads, intermediate_size and tie_word_embeddings
    are other names of its fields.
    """

    model_type = OURS
    attribute_map = {  # noqa: RUF012  # transformers declares it so
        "hidden_size": "width",
        "intermediate_size": "mlp_width",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "tie_word_embeddings": "tie_embeddings",
    }
    logits_soft_cap: float = 0.0
    tie_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    bos_token_id: int | None = 2

    @property
    def num_hidden_layers(self) -> int:
        return len(getattr(self, "block_types", ()))


def config_of(griffin: Griffin) -> RecurrentGemmaConfig | GriffinTextConfig:
    """Return the config that says what a model computes."""
    fields: dict[str, Any] = to_config_json(griffin.config, griffin.dtype)
    kind = RecurrentGemmaConfig if fields["model_type"] == HUGGINGFACE else GriffinTextConfig
    return kind.from_dict(fields)
