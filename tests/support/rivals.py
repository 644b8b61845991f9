"""The public implementations, fed with our checkpoints through our own converters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from griffin.checkpoints import save_model
from griffin.checkpoints.convert import convert
from griffin.model import Griffin, GriffinConfig

# Every field away from its default, as far as DeepMind's layout goes.
TOY = GriffinConfig(
    vocab_size=113,
    width=64,
    mlp_width=104,
    lru_width=48,
    num_heads=4,
    num_gate_blocks=4,
    block_types=("recurrent", "attention", "recurrent", "recurrent", "attention", "recurrent"),
    attention_window_size=16,
    logits_soft_cap=5.0,
    scale_embeddings=True,
)


def official_torch(model: Griffin, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Return recurrentgemma's torch model with our weights, through a DeepMind .pt archive."""
    import recurrentgemma.torch as official

    save_model(model, folder / "ours")
    convert(folder / "ours", folder / "official.pt", to="deepmind-torch")
    theirs = official.Griffin(official_config(model.config), device="cpu", dtype=dtype)
    theirs.load_state_dict(torch.load(folder / "official.pt", weights_only=True), strict=True)
    return theirs.requires_grad_(False)


def official_steps(theirs: Any, prompt: Tensor, rest: Tensor) -> Iterator[Tensor]:
    """Yield logits (B, T, V): of the prompt at once, then of each further token through the
    cache."""
    positions = torch.arange(prompt.shape[1]).expand_as(prompt)
    logits, cache = theirs(prompt, positions, None)
    yield logits
    for step, token in enumerate(rest.split(1, dim=1)):
        position = torch.full_like(token, prompt.shape[1] + step)
        logits, cache = theirs(token, position, cache)
        yield logits


def official_flax_logits(model: Griffin, folder: Path, tokens: Tensor) -> Tensor:
    """Return recurrentgemma's Flax logits of whole rows, through a DeepMind Orbax archive."""
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint
    import recurrentgemma.jax as official

    save_model(model, folder / "ours")
    convert(folder / "ours", folder / "orbax", to="deepmind-flax")
    # What official.load_parameters does; itself it fails with the orbax of today (a change in its
    # metadata).
    archive = next((folder / "orbax").glob("**/_METADATA")).parent
    params = orbax.checkpoint.PyTreeCheckpointer().restore(archive)
    theirs = official.Griffin(official_config(model.config), dtype=jnp.float32)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    # Compiled as one, in a third of the time that its operations take one by one.
    logits, _ = jax.jit(theirs.apply)({"params": params}, jnp.asarray(tokens.numpy()), positions)
    return torch.tensor(jnp.asarray(logits, jnp.float32).tolist())


def transformers_steps(
    model: Griffin, folder: Path, prompt: Tensor, rest: Tensor
) -> Iterator[Tensor]:
    """Yield transformers' logits: of the prompt at once, then of each further token through its
    cache."""
    from transformers import AutoModelForCausalLM, DynamicCache

    save_model(model, folder / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(folder / "ours", dtype=torch.float32)
    theirs.requires_grad_(False)
    cache = DynamicCache(config=theirs.config)
    for start, piece in [(0, prompt)] + [
        (prompt.shape[1] + i, t) for i, t in enumerate(rest.split(1, 1))
    ]:
        positions = torch.arange(start, start + piece.shape[1]).expand_as(piece)
        out = theirs(piece, position_ids=positions, past_key_values=cache, use_cache=True)
        yield out.logits


def official_config(config: GriffinConfig) -> Any:
    """Return recurrentgemma's config of the same shape."""
    from recurrentgemma import common

    kinds = {
        "recurrent": common.TemporalBlockType.RECURRENT,
        "attention": common.TemporalBlockType.ATTENTION,
    }
    return common.GriffinConfig(
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
