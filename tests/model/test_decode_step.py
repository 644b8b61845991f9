"""What a decode step asks for, at the true number of layers, of tensors without values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from griffin import ops
from griffin.engine import Slots
from griffin.model import Griffin, GriffinConfig
from griffin.model.decode_step import DecodeStep

# Of one op each is one launch on a GPU, but the keeping of what a step overwrites, which is two.
LAUNCHES = {
    "few_rows": 1,
    "look_up_rows": 1,
    "ring_attention": 1,
    "recurrent_step": 1,
    "keep_before": 2,
}
# Where the last tokens come from, and what is drawn: copied to where it is fetched.
RUNNERS = 4


@pytest.mark.parametrize(("size", "most"), [("2b", 140), ("9b", 200)])
@pytest.mark.parametrize("rows", [1, 256])
def test_launches_do_not_depend_on_rows_and_are_few(size, most, rows, monkeypatch):
    config = GriffinConfig.preset(f"recurrentgemma-{size}")
    with torch.device("meta"):
        model = Griffin(config).bfloat16().requires_grad_(False)
    slots = Slots(config, rows, dtype=torch.bfloat16, device="meta", stack=True)
    assert slots.stacked is not None
    step = DecodeStep(model, slots.view(0, rows), slots.stacked, rows)
    asked: Counter[str] = Counter()

    def counted(name: str) -> Any:
        run = getattr(ops, name)

        def call(*args: Any, **fields: Any) -> Any:
            asked[name] += 1
            return run(*args, **fields)

        return call

    for name in LAUNCHES:
        monkeypatch.setattr(ops, name, counted(name))
    tokens = torch.empty(rows, dtype=torch.int64, device="meta")
    live = torch.empty(1, dtype=torch.int32, device="meta")
    with torch.no_grad():
        logits = step.logits(tokens, live)
    assert logits.shape == (rows, config.vocab_size) and logits.dtype == torch.float32
    layers = config.num_layers
    assert sum(asked.values()) == 5 * layers + 3
    launches = sum(LAUNCHES[name] * count for name, count in asked.items())
    assert launches + RUNNERS <= most - 2
    # To go back by a token takes as much as is kept: the recurrent states and a slot of each ring.
    full = sum(t.nbytes for t in slots.stacked[:2])
    ring = sum(t.nbytes for t in slots.stacked[2:]) // config.attention_window_size
    assert step.nbytes == full + ring + 8 * rows
