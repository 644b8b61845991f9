"""A transformers class over our trunk and state: generate, PEFT, TRL and lm-eval, unchanged.

`from_pretrained` reads weights as they are, to be trained; `from_griffin` takes a model that
griffin has loaded, packed for the kernels or not. `register` is asked for: nothing changes at
import.
"""

from __future__ import annotations

import sys

try:
    import transformers
    from transformers.models import recurrent_gemma
except ImportError as error:
    raise ImportError(
        "griffin.hf stands on transformers: pip install 'griffin-lm[hf]'", name="transformers"
    ) from error

from griffin.hf.cache import GriffinCache
from griffin.hf.causal_lm import GriffinForCausalLM, RecurrentGemmaForCausalLM, from_griffin
from griffin.hf.config import GriffinTextConfig, RecurrentGemmaConfig
from griffin.hf.trunk import GriffinModel, RecurrentGemmaModel

__all__ = [
    "GriffinCache",
    "GriffinForCausalLM",
    "GriffinModel",
    "GriffinTextConfig",
    "RecurrentGemmaConfig",
    "RecurrentGemmaForCausalLM",
    "RecurrentGemmaModel",
    "from_griffin",
    "register",
]


def register() -> None:
    """Put these classes in the place of transformers' own, in this process.

    From here on AutoConfig, AutoModel and AutoModelForCausalLM give them for `recurrent_gemma`, a
    name that transformers has for a class of its own, and for `griffin`, our name for shapes that
    it cannot express. So does `transformers.RecurrentGemmaForCausalLM`, which TRL goes by where it
    loads a model from its path.
    """
    for config, model, causal in (
        (RecurrentGemmaConfig, RecurrentGemmaModel, RecurrentGemmaForCausalLM),
        (GriffinTextConfig, GriffinModel, GriffinForCausalLM),
    ):
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        transformers.AutoModel.register(config, model, exist_ok=True)
        transformers.AutoModelForCausalLM.register(config, causal, exist_ok=True)
        # While it is imported, transformers puts itself into sys.modules a second time.
        for place in (transformers, sys.modules["transformers"], recurrent_gemma):
            for each in (config, model, causal):
                setattr(place, each.__name__, each)
