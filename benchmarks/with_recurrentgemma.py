"""DeepMind's own torch code, on random weights of the checkpoint's shape: values make no speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from griffin.bench.ours import GriffinWork
from griffin.bench.program import Options
from griffin.model import GriffinConfig

if TYPE_CHECKING:
    import numpy


class RecurrentGemma(GriffinWork):
    """A rival. With a cache it takes one token a call, so a prompt is read in one."""

    resumes = False

    def __init__(self, options: Options) -> None:
        import recurrentgemma.torch as official
        from recurrentgemma import common

        torch.set_num_threads(options.threads)
        assert options.config is not None
        config = GriffinConfig.from_dict(options.config)
        dtype = torch.float32 if options.format == "float32" else torch.bfloat16
        kinds = {
            "recurrent": common.TemporalBlockType.RECURRENT,
            "attention": common.TemporalBlockType.ATTENTION,
        }
        shape = common.GriffinConfig(
            vocab_size=config.vocab_size,
            width=config.width,
            mlp_expanded_width=config.mlp_width,
            num_heads=config.num_heads,
            block_types=tuple(kinds[kind] for kind in config.block_types),
            embeddings_scale_by_sqrt_dim=config.scale_embeddings,
            attention_window_size=config.attention_window_size,
            logits_soft_cap=config.logits_soft_cap,
            lru_width=config.lru_width,
        )
        # Without its initial values, which take it minutes at 2B; then small numbers, none of them
        # denormal.
        net: Any = official.Griffin(shape, device="meta", dtype=dtype, gradient_checkpointing=False)
        self._net: Any = net.to_empty(device="cpu").requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        for parameter in self._net.parameters():
            parameter.uniform_(-0.02, 0.02, generator=generator)
        self.model = "random weights of its shape"
        self.format = "float32" if dtype == torch.float32 else "bf16"
        super().__init__(config, sum(p.nbytes for p in self._net.parameters()), dtype, None)
        self.forget(1, 0)

    def forget(self, batch: int, capacity: int) -> None:
        self._cache: Any = None
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
        # It computes the logits of every position: there is no way to ask for the last alone.
        logits, self._cache = self._net(tokens, positions, self._cache)
        self._next = logits[:, -1].argmax(-1, keepdim=True)
