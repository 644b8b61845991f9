"""transformers' RecurrentGemma on the same checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from griffin.bench.ours import GriffinWork
from griffin.bench.program import Options
from griffin.model import GriffinConfig

if TYPE_CHECKING:
    import numpy


class Transformers(GriffinWork):
    """A rival. Its convolution forgets at the beginning of a call, so a prompt is read in one."""

    resumes = False

    def __init__(self, options: Options) -> None:
        from transformers import AutoModelForCausalLM, DynamicCache

        torch.set_num_threads(options.threads)
        dtype = {"float32": torch.float32, "bf16": torch.bfloat16}.get(options.format, "auto")
        self._net: Any = AutoModelForCausalLM.from_pretrained(
            options.model, dtype=dtype
        ).requires_grad_(False)
        self._new_cache = lambda: DynamicCache(config=self._net.config)
        self.model = Path(options.model).name
        self.format = "float32" if self._net.dtype == torch.float32 else "bf16"
        assert options.config is not None
        config = GriffinConfig.from_dict(options.config)
        super().__init__(
            config, sum(p.nbytes for p in self._net.parameters()), self._net.dtype, None
        )
        self.forget(1, 0)

    def forget(self, batch: int, capacity: int) -> None:
        self._cache: Any = self._new_cache()
        self._seen = 0
        self._next = torch.empty(0)

    def read(self, tokens: numpy.ndarray) -> None:
        self._advance(torch.from_numpy(tokens))

    def step(self) -> None:
        self._advance(self._next)

    @torch.no_grad()
    def _advance(self, tokens: torch.Tensor) -> None:
        positions = torch.arange(self._seen, self._seen + tokens.shape[1]).expand_as(tokens)
        self._seen += tokens.shape[1]
        out = self._net(
            tokens,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._next = out.logits[:, -1].argmax(-1, keepdim=True)
