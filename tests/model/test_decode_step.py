"""What a decode step asks for, at the true number of layers, of tensors without values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from griffin import ops
from griffin.bench.gpu.limits import WEIGHT_BYTES, decode_limit
from griffin.engine import Slots, graph_runner
from griffin.engine.graph_runner import GraphRunner
from griffin.model import Griffin, GriffinConfig, decode_step
from griffin.ops.launching import record
from tests.ops.step_launches import laid


class Operations(TorchDispatchMode):
    """Takes down torch's operations that are launched: not views, and no room for results."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, out = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        asks = not func.is_view and not name.startswith(("empty", "new_empty"))
        if asks and any(isinstance(t, Tensor) for t in tree_flatten(out)[0]):
            self.names.append(name)
        return out


class Counted:
    """Graphs that take down what a step of each bucket launches, by Triton's kernels."""

    def __init__(self) -> None:
        self.launches: list[list[str]] = []
        self.moved: list[int] = []

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        with record() as kernels, ops.use("triton"), Operations() as others:
            call()
        self.launches.append([*others.names, *(each.name for each in kernels)])
        self.moved.append(sum(each.moved for each in kernels))
        return call


def model_and_slots(size: str, rows: int) -> tuple[Griffin, Slots]:
    config = GriffinConfig.preset(f"recurrentgemma-{size}")
    with torch.device("meta"):
        model = Griffin(config).bfloat16().requires_grad_(False)
    return model, Slots(config, rows, dtype=torch.bfloat16, device="meta", stack=True)


@pytest.mark.parametrize(("size", "most"), [("2b", 140), ("9b", 200)])
def test_launches_do_not_depend_on_rows_and_are_few(size, most, monkeypatch):
    rows = 256
    monkeypatch.setattr(graph_runner, "buckets", lambda slots: [1, 24, slots])
    model, slots = model_and_slots(size, rows)
    config = model.config
    assert slots.stacked is not None
    graphs = Counted()
    with torch.no_grad():
        runner = GraphRunner(model, slots, graphs)
    largest, *others = graphs.launches
    assert all(each == largest for each in others)
    # Five a block; ids, what is kept (2), embedding, head, the draw (4).
    assert len(largest) == 5 * config.num_layers + 9 <= most, largest
    assert largest[0] == "index_select" and largest[-4:] == [
        "_weigh_parts",
        "_find_least",
        "_weigh_kept",
        "_draw",
    ]
    # To go back by a token takes as much as is kept: the recurrent states and a slot of each ring.
    full = sum(t.nbytes for t in slots.stacked[:2])
    ring = sum(t.nbytes for t in slots.stacked[2:]) // config.attention_window_size
    assert runner._step.nbytes == full + ring + 8 * rows


@pytest.mark.parametrize("format", WEIGHT_BYTES)
@pytest.mark.parametrize("size", ["2b", "9b"])
def test_a_step_moves_hardly_more_than_it_must(size, format, monkeypatch):
    """Beside the limit's weights, states and logits: what blocks hand each other, and what is kept
    to go back by a token."""
    if format != "bf16":

        def lay(layers: list[Any]) -> ops.Laid:
            weights = [layer.weight for layer in layers]
            return laid(sum(map(len, weights)), weights[0].shape[1], format, torch.bfloat16)

        monkeypatch.setattr(decode_step, "_lay", lay)
    for rows, most in ((1, 1.01), (8, 1.05), (32, 1.07)):
        monkeypatch.setattr(graph_runner, "buckets", lambda slots: [slots])
        model, slots = model_and_slots(size, rows)
        graphs = Counted()
        with torch.no_grad():
            GraphRunner(model, slots, graphs)
        limit = decode_limit(model.config, format, rows).nbytes
        assert limit < graphs.moved[0] <= most * limit
