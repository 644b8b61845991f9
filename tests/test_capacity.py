"""The plan's bytes are those that models and engines take; one sequence more is refused."""

from __future__ import annotations

import pytest
import torch

from griffin.bench.work import decode_bytes, operations, state_bytes, weight_bytes
from griffin.capacity import model_bytes, parts, plan, step_operations
from griffin.engine import Engine, Slots
from griffin.engine.graph_memory import graph_bytes
from griffin.engine.graph_runner import GraphRunner
from griffin.engine.graphs import NoGraphs
from griffin.model import Griffin, GriffinConfig, State
from griffin.quant import add_screen, quantize_model
from tests.support.toy_engine import CONFIG, make_model
from tests.support.toy_models import GRIFFIN, HAWK

TWO_B = GriffinConfig.preset("recurrentgemma-2b")
NANO = GriffinConfig.preset("nano")
GB = 10**9


@pytest.mark.thorough
@pytest.mark.parametrize("config", [GRIFFIN, HAWK, CONFIG], ids=["untied", "hawk", "griffin"])
@pytest.mark.parametrize("format", [None, "bf16", "int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_counted_to_the_byte(config, format, dtype):
    model = Griffin(config).to(dtype)
    if format is not None:
        quantize_model(model, format)
    assert model_bytes(config, dtype, format) == weight_bytes(model)


def test_states_are_counted_to_the_byte(monkeypatch):
    assert parts(TWO_B, torch.bfloat16) == (460_800 + 8, 8_192)
    assert parts(GriffinConfig.preset("recurrentgemma-9b"), torch.bfloat16) == (
        1_064_960 + 8,
        12_288,
    )
    assert parts(HAWK, torch.float32)[1] == 0
    made = plan(CONFIG, ram_bytes=GB, dtype=torch.float32, slots=6)
    engine = Engine(make_model(), made.slots, kept=made.kept, max_bytes=made.live_bytes)
    assert engine.stats().slot_bytes == 6 * made.slot_bytes and made.kept == 6
    model, zeros = make_model(), torch.zeros

    def counted_only(*sizes, device="cpu", **options):
        assert str(device) == "meta", "something was allocated first"
        return zeros(*sizes, device=device, **options)

    monkeypatch.setattr(torch, "zeros", counted_only)
    with pytest.raises(ValueError, match="enough for 12 of them"):
        Engine(model, made.slots + 1, kept=made.kept, max_bytes=made.live_bytes)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("context", [0, 5, 100])
def test_a_step_moves_what_the_benchmarks_count(rows, context):
    for config in (GRIFFIN, HAWK):
        model = quantize_model(Griffin(config).float(), "int8")
        own = plan(config, ram_bytes=GB, dtype=torch.float32, format="int8").step_bytes(
            rows, context
        )
        state = state_bytes(State.zeros(config), context)
        more = (
            0
            if config.tie_embeddings
            else (rows - 1) * (weight_bytes(model.model.embed_tokens) // config.vocab_size)
        )
        assert own == decode_bytes(model) + more + rows * (state + 16)  # pos, read and written
    assert step_operations(CONFIG) == pytest.approx(operations(CONFIG, 0), rel=0.01)


@pytest.mark.parametrize("head", [None, "int8"])
@pytest.mark.parametrize("tied", [False, True])
def test_behind_a_screen_a_step_reads_few_panels_of_the_head(tied, head):
    config = GRIFFIN.replace(vocab_size=203, tie_embeddings=tied)  # 13 panels, a row reads three
    model = add_screen(quantize_model(Griffin(config).float(), "int4", head))
    shape = {"ram_bytes": GB, "dtype": torch.float32, "format": "int4", "head": head}
    whole, made = plan(config, **shape), plan(config, screen="int3", **shape)
    assert made.weight_bytes == weight_bytes(model)
    assert made.screen_bytes == weight_bytes(model.screen) == made.weight_bytes - whole.weight_bytes
    state = state_bytes(State.zeros(config), 5)
    assert made.step_bytes(1, 5) == decode_bytes(model) + state + 16
    two_bits = made.screen_bytes * 320 // 448
    assert made.step_bytes(5, 5) == whole.step_bytes(5, 5) + two_bits, "all are read"


def test_the_most_sequences_that_fit_are_found_and_one_more_is_refused():
    asked = {"ram_bytes": 16 << 30, "format": "int8", "prefix_cache_bytes": 1 << 30}
    made = plan(TWO_B, **asked)
    assert made.total_bytes == sum(
        (
            made.weight_bytes,
            made.runtime_bytes,
            made.working_bytes,
            1 << 30,
            (made.slots + made.kept) * Slots.bytes(TWO_B, torch.bfloat16),
        )
    )
    assert 0 <= made.spare_bytes < 2 * made.slot_bytes + 4 * TWO_B.vocab_size * 4
    assert plan(TWO_B, slots=made.slots, **asked) == made
    with pytest.raises(
        ValueError, match=rf"{made.slots + 1} live sequences .* enough for {made.slots} of"
    ):
        plan(TWO_B, slots=made.slots + 1, **asked)
    assert plan(TWO_B, slots=3, **asked).spare_bytes > 10 * GB
    assert plan(TWO_B, kept=0, **asked).slots > made.slots
    with pytest.raises(ValueError, match="less than the model with one of them takes"):
        plan(TWO_B, ram_bytes=2 << 30)
    with pytest.raises(ValueError, match="no format 'int1'; there are bf16"):
        plan(TWO_B, ram_bytes=GB, format="int1")
    with pytest.raises(ValueError, match="slots must be at least 1"):
        plan(TWO_B, ram_bytes=GB, slots=0)


def test_graphs_take_what_their_runner_says():
    """All but what lies between two launches, which no runner can tell before it runs."""
    slots = Slots(CONFIG, 3, dtype=torch.float32, stack=True)
    with torch.no_grad():
        runner = GraphRunner(make_model(), slots, NoGraphs())
    between = graph_bytes(CONFIG, torch.float32, 3) - runner.nbytes
    assert 0 < between < 3 * 40_000
    asked = {"ram_bytes": 80 << 30, "format": "int8"}
    with_graphs, without = plan(TWO_B, graphs=True, **asked), plan(TWO_B, **asked)
    assert with_graphs.graph_bytes == graph_bytes(TWO_B, torch.bfloat16, with_graphs.slots)
    assert with_graphs.total_bytes <= 80 << 30 and without.graph_bytes == 0
    # A row costs its logits, and what it goes back by: not one set of them for each graph.
    each = [graph_bytes(TWO_B, torch.bfloat16, n) for n in (64, 65)]
    assert 1_024_000 + 460_800 + 8_192 < each[1] - each[0] < 2_000_000


def test_one_is_found_where_only_one_fits():
    least = plan(NANO, ram_bytes=GB, slots=1).total_bytes
    made = plan(NANO, ram_bytes=least)
    assert made.slots == 1 and made.spare_bytes == 0
    with pytest.raises(ValueError, match="less than the model"):
        plan(NANO, ram_bytes=least - 1)


def test_disk_and_speed():
    made = plan(TWO_B, ram_bytes=16 << 30, format="int8")
    assert made.sessions_on_disk() == 57 == made.sessions_on_disk(10 * GB) // 10
    assert made.turn_bytes[1] == 8192 and made.turn_bytes[0] < 500_000
    one, eight = made.tokens_per_second(20e9, 1, 2048), made.tokens_per_second(20e9, 8, 2048)
    assert one == pytest.approx(20e9 / made.step_bytes(1, 2048)) and 7 * one < eight < 8 * one
    slow = made.tokens_per_second(20e9, 8, 2048, operation_rate=1e11)
    assert slow == pytest.approx(1e11 / step_operations(TWO_B)) and slow < eight
