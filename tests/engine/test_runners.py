"""Which runner an engine has: graphs where kernels serve, and elsewhere a reason why not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from griffin.engine import End, Engine, generate, runners
from griffin.engine.draft_runner import DraftRunner
from griffin.engine.graph_runner import GraphRunner
from griffin.engine.graphs import NoGraphs
from griffin.model import GriffinConfig, step_kernels
from griffin.model.step_kernels import why_no_kernels
from tests.support.recorded_graphs import RecordedGraphs
from tests.support.toy_engine import CHUNK, alone, ask, make_model, plain, run, zero_slots

TWO = GriffinConfig.preset("recurrentgemma-2b")
BF16 = torch.bfloat16


@pytest.fixture
def serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a GPU and a Triton that the kernels were tried with."""
    monkeypatch.setattr(step_kernels.launching, "why_not", lambda _: None)


@pytest.mark.usefixtures("serves")
@pytest.mark.parametrize(
    ("config", "dtype", "adapters", "said"),
    [
        (TWO, BF16, False, None),
        (TWO, torch.float16, False, "the model is float16, and the kernels are for bfloat16"),
        (TWO, torch.float32, False, "the model is float32"),
        (TWO, torch.float64, False, "the model is float64"),
        (TWO.replace(num_heads=5), BF16, False, "heads are 512 wide, and the kernel has room for"),
        (TWO.replace(num_heads=5, block_types=("recurrent",)), BF16, False, None),
        (TWO, BF16, True, "the model has adapters"),
    ],
)
def test_why_a_gpu_takes_no_steps_as_kernels(config, dtype, adapters, said):
    found = why_no_kernels(config, dtype, "cuda:1", adapters)
    assert found is None if said is None else found.startswith(said)
    assert "lies on cpu" in str(why_no_kernels(config, dtype, "cpu", adapters))


@pytest.mark.parametrize(
    "reason",
    [
        "triton is not installed",
        "triton 4.0 has not been tried (3.6 to 3.9 have)",
        "the GPU is of capability 7.5, and kernels need 8.0",
    ],
)
def test_what_the_kernels_lack_is_the_reason(reason, monkeypatch):
    monkeypatch.setattr(step_kernels.launching, "why_not", lambda _: reason)
    assert why_no_kernels(TWO, BF16, "cuda") == reason


def test_graphs_are_the_default_where_kernels_serve(monkeypatch):
    """Whoever makes an engine, and unless the model was loaded without them."""
    model, request = make_model(), ask(7, 3, 9)
    expected = alone(model, request)
    captured: list[tuple[int, int]] = []
    assert isinstance(Engine(model, 2)._core.runner, DraftRunner)
    monkeypatch.setattr(runners, "why_no_kernels", lambda *_: None)
    monkeypatch.setattr(runners, "CudaGraphs", lambda device: RecordedGraphs())
    engine = Engine(model, 2, chunk=CHUNK, capturing=lambda *counts: captured.append(counts))
    assert isinstance(engine._core.runner, GraphRunner) and captured == [(1, 2), (2, 2)]
    engine.submit(request)
    assert [id for id, _ in plain(run(engine))] == [id for id, _ in expected]
    engine.close()
    assert isinstance(engine._core.runner, DraftRunner), "its memory is given back"
    events = generate(model, [request], chunk=CHUNK)
    assert isinstance(events._engine._core.runner, GraphRunner)
    assert [event.id for event in events] == [id for id, _ in expected]
    model.by_graphs = False
    assert runners.why_no_graphs(model) == "graphs were not wanted"
    assert isinstance(Engine(model, 2)._core.runner, DraftRunner)


def breaking(engine: Engine, error: BaseException) -> None:
    """Let the next replay of an engine's graphs change something and then break."""
    runner: Any = engine._core.runner
    whole = dict(runner.replays)

    def torn(size: int) -> None:
        runner.replays.update(whole)
        whole[size]()
        raise error

    runner.replays.update({size: partial(torn, size) for size in whole})


def test_ctrl_c_in_the_middle_of_a_replay_ends_all_and_leaves_a_clean_engine():
    model = make_model()
    engine = Engine(model, 2, chunk=CHUNK, kept=2, graphs=NoGraphs())
    tickets = [engine.submit(ask(5, seed=n), keep_state=True) for n in range(3)]
    engine.step()
    engine.step()
    breaking(engine, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert all(t.finish_reasons == ["cancelled"] and t.context is None for t in tickets)
    assert zero_slots(engine) and engine.stats().kept == 0 and engine.stats().waiting == 0
    again = engine.submit(ask(6, seed=11))
    expected = alone(model, again.request)
    assert [id for id, _ in plain(run(engine))] == [id for id, _ in expected]


def test_an_error_of_a_step_ends_its_rows_and_no_others():
    model = make_model()
    engine = Engine(model, 1, chunk=CHUNK, graphs=NoGraphs())
    hit, waiting = engine.submit(ask(5, seed=1)), engine.submit(ask(6, seed=2))
    engine.step()
    breaking(engine, torch.OutOfMemoryError("no room for a step"))
    events = run(engine)
    assert hit.finish_reasons == ["error"] and waiting.finish_reasons == ["length"]
    (end,) = [event for event in events if isinstance(event, End)]
    assert str(end.error) == "no room for a step"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_that_is_lost_closes_the_engine_with_the_reason():
    """A server then answers 503 and ends, so that a supervisor starts another."""
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    engine = Engine(make_model(), 2, chunk=CHUNK, graphs=NoGraphs())
    tickets = [engine.submit(ask(5, seed=n, max_tokens=500)) for n in range(3)]
    breaking(engine, lost)
    engine.start()
    for ticket in tickets:
        assert ticket.wait(60)
        assert ticket.finish_reasons == ["error"]
        (*_, end) = ticket.events(1)
        assert isinstance(end, End) and end.error is lost
    assert "illegal memory access" in engine.closed
    engine.close()
