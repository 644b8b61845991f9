"""States that are carried from row to row: where a row's end cut a document, its next row goes on.

One state a source, of this rank's rows of a micro-batch. They are values like all states; a step
makes new ones, and a checkpoint has them beside weights and moments, split over the ranks by rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from griffin.model import GriffinConfig, State
from griffin.train.scale.ranks import Ranks


def new_states(
    config: GriffinConfig, sources: int, rows: int, dtype: torch.dtype, device: torch.device
) -> list[State]:
    """Return a state for each source, of which nothing has been read."""
    return [State.zeros(config, rows, dtype=dtype, device=device) for _ in range(sources)]


def state_tensors(states: Sequence[State], ranks: Ranks) -> dict[str, Tensor]:
    """Return the tensors of states by name, each with the rows of all ranks.

    They share memory with the states, so reading into them fills those.
    """
    tensors = dict[str, Tensor]()
    for source, state in enumerate(states):
        tensors[f"carried.{source}.pos"] = _of_all(state.pos, ranks)
        for number, layer in enumerate(state.layers):
            for name, tensor in zip(layer._fields, layer, strict=True):
                tensors[f"carried.{source}.{number}.{name}"] = _of_all(tensor, ranks)
    return tensors


def whole_states(states: Sequence[State], ranks: Ranks) -> list[State]:
    """Return states with the rows of all ranks, on each of them; all ranks must call this."""

    def whole(tensor: Tensor) -> Tensor:
        shared = _of_all(tensor, ranks)
        return shared if ranks.mesh is None else shared.full_tensor()  # pyright: ignore

    return [state.map(whole) for state in states]


def _of_all(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Return a tensor of this rank's rows as its part of one of all ranks' rows.

    Ranks that read rows together have the same part.
    """
    if ranks.mesh is None:
        return tensor
    from torch.distributed.tensor import DTensor, Replicate, Shard

    if ranks.grid is None:
        return DTensor.from_local(tensor, ranks.mesh, [Shard(0)])
    return DTensor.from_local(tensor, ranks.grid, [Shard(0), Replicate()], run_check=False)
