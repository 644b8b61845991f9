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
from griffin.bench.gpu.decoding import tell
from griffin.bench.gpu.limits import WEIGHT_BYTES, decode_limit
from griffin.engine import Slots, graph_runner
from griffin.engine.graph_runner import GraphRunner
from griffin.model import Griffin, GriffinConfig, decode_step
from griffin.ops.launching import record
from griffin.ops.ring_attention.triton import PART
from tests.ops.step_launches import laid
from tests.support.stand_in_device import DEVICE, model_on, stand_in


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


def packed(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """Let a step find its weights in a format: words without values, of the shape they have."""
    if format == "bf16":
        return

    def lay(layers: list[Any]) -> ops.Laid:
        weights = [layer.weight for layer in layers]
        return laid(sum(map(len, weights)), weights[0].shape[1], format, torch.bfloat16)

    monkeypatch.setattr(decode_step, "_lay", lay)


@pytest.mark.parametrize("format", WEIGHT_BYTES)
@pytest.mark.parametrize(("size", "most"), [("2b", 140), ("9b", 200)])
def test_launches_do_not_depend_on_rows_and_are_few(size, most, format, monkeypatch):
    """The same ones for 1, 24 and 256 rows, and as many in each format."""
    rows = 256
    packed(monkeypatch, format)
    monkeypatch.setattr(graph_runner, "buckets", lambda slots: [1, 24, slots])
    model, slots = model_and_slots(size, rows)
    config = model.config
    assert slots.stacked is not None
    graphs = Counted()
    with torch.no_grad():
        runner = GraphRunner(model, slots, graphs)
    largest, *others = graphs.launches
    assert all(each == largest for each in others)
    # Five a block; ids, what is kept of rings and counted (2), embedding, head, the draw (4).
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


def handed_over(config: GriffinConfig) -> int:
    """Return the bytes of a row that launches write for the next one, which reads them: values in
    bfloat16, and the parts that attention is summed from."""
    d, e, m = config.width, config.lru_width, config.mlp_width
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    mlp = (d + m) + (m + 2 * d)  # into it; out of it and onto the residual, which is read, too
    recurrent = (d + 2 * e) + (2 * e + e) + (e + 2 * d)
    attention = (d + q + 2 * kv) + (q + 2 * kv + q) + (q + 2 * d)
    cuts = config.attention_window_size // PART
    sums = 2 * 4 * cuts * config.num_heads * (config.head_dim + 2)
    rings = config.block_types.count("attention")
    values = config.num_layers * mlp + rings * attention
    values += (config.num_layers - rings) * recurrent
    return 2 * values + rings * sums + 2 * 3 * d  # the embedding, and what the head reads


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
def test_a_step_waits_for_nothing_and_crosses_once_each_way():
    """On a device without values, with the kernels' own operators: 2B, whole."""
    config, rows = GriffinConfig.preset("recurrentgemma-2b"), 8
    calls: list[Callable[[], None]] = []

    class Kept:
        def capture(self, call: Callable[[], None]) -> Callable[[], None]:
            calls.append(call)
            return call

    with stand_in() as watch, ops.use("triton"):
        slots = Slots(config, rows, dtype=torch.bfloat16, device=DEVICE, stack=True)
        with watch.crossing():  # what is made once
            runner = GraphRunner(model_on(config), slots, Kept(), sizes=[rows])
        for _ in range(2):
            watch.crossed.clear()
            with watch.crossing():
                tell(runner.memory, 3)
            assert watch.crossed == {"copy_": 1}
            with record() as launches:
                calls[0]()
            assert len(launches) == 5 * config.num_layers + 8 and watch.crossed.total() == 1
            with watch.crossing():
                runner.memory.fetch()
            assert watch.crossed == {"copy_": 2}


@pytest.mark.parametrize("format", WEIGHT_BYTES)
@pytest.mark.parametrize("size", ["2b", "9b"])
def test_a_step_moves_hardly_more_than_it_must(size, format, monkeypatch):
    """Beside the limit's weights, states and logits: what a row can go back by a token with, which
    is less than a twentieth, and what blocks hand each other, which the next launch finds in the
    chip's own cache (docs/gpu.md)."""
    packed(monkeypatch, format)
    for rows in (1, 32, 1024):
        monkeypatch.setattr(graph_runner, "buckets", lambda slots: [slots])
        model, slots = model_and_slots(size, rows)
        graphs = Counted()
        with torch.no_grad():
            GraphRunner(model, slots, graphs)
        config, limit = model.config, decode_limit(model.config, format, rows).nbytes
        assert slots.stacked is not None
        recurrent, ring = slots.stacked[:2], slots.stacked[2:]
        kept = sum(t.nbytes for t in recurrent)
        kept += 2 * sum(t.nbytes for t in ring) // config.attention_window_size
        assert limit < limit + kept <= 1.05 * limit
        handed = rows * handed_over(config)
        # The scales of int8, and what the draw knows of each part of a row's logits.
        assert graphs.moved[0] == pytest.approx(limit + kept + handed, rel=3e-3)
        assert handed < 0.3 * limit
