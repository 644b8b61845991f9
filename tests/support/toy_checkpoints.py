"""Toy checkpoints: as far from the defaults as each format can express."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from griffin.model import Griffin, GriffinConfig
from tests.support.toy_models import GRIFFIN

HUGGINGFACE = GRIFFIN.replace(num_gate_blocks=6, lru_width=54)
DEEPMIND = GRIFFIN.replace(
    num_gate_blocks=6,
    lru_width=54,
    num_kv_heads=1,
    conv_width=4,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_fraction=0.5,
    attention_bias=False,
    tie_embeddings=True,
)
UNTOLD = {"attention_window_size": 16, "logits_soft_cap": 5.0, "scale_embeddings": True}


def same(left: Griffin, right: Griffin) -> bool:
    """Return whether two models hold the same parameters, bit for bit."""
    one, other = left.state_dict(), right.state_dict()
    return one.keys() == other.keys() and all(
        a.dtype == other[name].dtype and torch.equal(a, other[name]) for name, a in one.items()
    )


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Rewrite a folder's safetensors file; a name with "__" for "." given None is dropped."""
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor.contiguous().clone()
    save_file(tensors, file)


def edit_config(folder: Path, drop: tuple[str, ...] = (), **changes: Any) -> None:
    file = folder / "config.json"
    fields = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in fields.items() if key not in drop}))


def config(**changes: Any) -> GriffinConfig:
    return HUGGINGFACE.replace(**changes)
