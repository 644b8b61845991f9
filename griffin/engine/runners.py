"""Which runner moves an engine's rows on, and the slots that it works over."""

from __future__ import annotations

from collections.abc import Callable

import torch

from griffin.engine.batch import Batch
from griffin.engine.draft_runner import DraftRunner
from griffin.engine.graph_runner import GraphRunner
from griffin.engine.graphs import CudaGraphs, Graphs
from griffin.engine.runner import Runner
from griffin.engine.slots import Slots
from griffin.model import Griffin
from griffin.model.step_kernels import why_no_kernels

Capturing = Callable[[int, int], object]


def why_no_graphs(model: Griffin) -> str | None:
    """Return why an engine of a model does not step by graphs unless it must; None: it does."""
    if not model.by_graphs:
        return "graphs were not wanted"
    return why_no_kernels(model.config, model.dtype, model.device, bool(model.adapters.names))


def started(
    model: Griffin, slots: int, graphs: Graphs | bool, capturing: Capturing | None = None
) -> tuple[Batch, Runner]:
    """Return a batch of free slots and the runner that moves its rows on.

    graphs: True takes CUDA graphs where `why_no_graphs` has nothing to say, and False none; others
            are taken wherever the model lies. capturing: called with how many of all graphs there
            are.
    """
    if graphs is True:
        graphs = slots > 0 and why_no_graphs(model) is None and CudaGraphs(model.device)
    by_graphs = graphs is not False
    where = {"dtype": model.dtype, "device": model.device}
    memory = Slots(model.config, slots, stack=by_graphs, **where)
    runner: Runner = DraftRunner(model)
    if graphs is not False:
        with torch.no_grad():
            runner = GraphRunner(model, memory, graphs, capturing or (lambda done, of: None))
    return Batch(memory), runner
