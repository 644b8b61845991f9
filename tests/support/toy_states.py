"""A tuned state of a toy folder, drawn instead of learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import griffin
from griffin.adapters import save_tuned_state
from griffin.llm import LLM
from griffin.model import TunedState


def write_tuned(llm: LLM | Path, file: Path, *, keys: int = 1, seed: int | None = 0) -> Path:
    """Write a state that moves what a model says. keys: its positions. seed: of what is added to
    the untuned one; None adds nothing."""
    llm = llm if isinstance(llm, LLM) else griffin.load(llm)
    ids, name = [llm.tokenizer.bos_id] * keys, Path(llm.name).name
    made = TunedState.begin(llm.model, ids, weights=llm.weights_digest, name=name)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        moved = {
            part: tensor + torch.randn(tensor.shape, generator=generator)
            for part, tensor in made.tensors().items()
        }
        made = replace(made, **moved)
    save_tuned_state(made, file)
    return file
