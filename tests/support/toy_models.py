"""Toy models whose every config field is away from its default: none is ignored unnoticed."""

from __future__ import annotations

import torch

from griffin.model import Griffin, GriffinConfig

GRIFFIN = GriffinConfig(
    vocab_size=89,
    width=48,
    mlp_width=80,
    lru_width=40,
    num_heads=6,
    num_kv_heads=2,
    num_gate_blocks=5,
    block_types=("recurrent", "attention", "recurrent", "attention", "recurrent"),
    attention_window_size=16,
    conv_width=3,
    logits_soft_cap=5.0,
    scale_embeddings=True,
    rms_norm_eps=1e-4,
    rope_theta=500.0,
    rope_fraction=0.75,
    attention_bias=True,
    tie_embeddings=False,
)
HAWK = GRIFFIN.replace(block_types=("recurrent",) * 3, conv_width=4, tie_embeddings=True)
TOYS = {"griffin": GRIFFIN, "hawk": HAWK}


def make_model(config: GriffinConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> Griffin:
    """Return a model none of whose parameters is zero, so that biases and norms count too."""
    generator = torch.Generator().manual_seed(seed)
    model = Griffin(config).to(torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = 0.2 if parameter.dim() == 1 or "bias" in name else parameter.shape[-1] ** -0.5
            mean = -3.0 if name.endswith("recurrent_param") else 0.0  # a near 1: it remembers
            parameter.normal_(mean, std, generator=generator)
    return model.to(dtype).requires_grad_(False)


def make_tokens(config: GriffinConfig, rows: int, steps: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(
        config.vocab_size, (rows, steps), generator=torch.Generator().manual_seed(seed)
    )
