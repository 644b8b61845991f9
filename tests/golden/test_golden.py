"""Checkpoints and logits that other implementations wrote (see make.py), read and computed by
ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from griffin.checkpoints import load_model

HERE = Path(__file__).parent
ARCHIVES = {"torch": "torch/toy.pt", "flax": "flax/toy", "huggingface": "huggingface"}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_golden(kind: str) -> None:
    given = json.loads((HERE / kind / "config-given.json").read_text())
    model = load_model(HERE / ARCHIVES[kind], config=None if kind == "huggingface" else given)
    expected = load_file(HERE / kind / "expected.safetensors")
    positions = None if kind == "huggingface" else expected["positions"]
    with torch.no_grad():
        logits, _ = model(expected["tokens"], None, positions)
    worst = (logits - expected["logits"]).abs().max().item() / expected["logits"].std().item()
    assert worst <= 1e-4, f"{kind}: logits differ by {worst:.2e} of their standard deviation"


def test_golden_files_are_small() -> None:
    total = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    assert total < 1_000_000
