"""A tiny model folder, tokenizer included, made in a second: what the tests of llm and cli load."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from griffin.checkpoints import save_model
from griffin.model import Griffin, GriffinConfig
from griffin.train.data.bpe import save_bpe, train_bpe

# Widths are multiples of 64, so that a row has the same bits alone and in company.
CONFIG = GriffinConfig(
    vocab_size=512,
    width=64,
    mlp_width=128,
    lru_width=64,
    num_heads=4,
    num_gate_blocks=4,
    block_types=("recurrent", "recurrent", "attention"),
    attention_window_size=32,
    logits_soft_cap=30.0,
    scale_embeddings=True,
)


def write_toy(folder: Path, vocab_size: int = 512, **generation: object) -> Path:
    """Write a random model of `vocab_size` embeddings with a tokenizer of 480 ids at most; return
    `folder`.

    generation: fields for generation_config.json, which is written only if there are any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = Path(json.__file__).read_text(encoding="utf-8")
    save_bpe(train_bpe([text], 480), folder)
    torch.manual_seed(0)
    model = Griffin(CONFIG.replace(vocab_size=vocab_size))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.05 * torch.randn_like(parameter))
    save_model(model, folder)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
