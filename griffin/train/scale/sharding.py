"""Weights split over ranks by torch's FSDP2: made so, filled, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from griffin.model.state import LayerState
from griffin.train.objective import Objective
from griffin.train.scale.ranks import Ranks


def shard(objective: Objective, ranks: Ranks) -> None:
    """Split every weight over the ranks by its first dimension; nothing for one process.

    Frozen weights stay whole on every rank. A block's weights are gathered while it runs. The
    embedding and the final norm, which the loss needs again, stay from the forward pass to the end
    of the backward pass. Gradients are summed over ranks, not averaged: a step's targets weigh the
    same wherever they are.
    """
    if ranks.mesh is None:
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard

    frozen = {each for each in objective.parameters() if not each.requires_grad}
    for block in objective.griffin.model.layers:
        block.register_forward_hook(_without_gradient)  # before those of FSDP2, which look at it
        fully_shard(block, mesh=ranks.mesh, ignored_params=frozen)
    fully_shard(objective, mesh=ranks.mesh, ignored_params=frozen)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other


def _without_gradient(
    block: nn.Module, inputs: object, output: tuple[Tensor, LayerState]
) -> tuple[Tensor, LayerState]:
    """Detach the state that a block returns.

    An objective sends no gradient through it; but FSDP2 would wait for one, and warns of the views
    in it, whose place in the backward pass a write into them would lose.
    """
    x, after = output
    return x, cast(LayerState, type(after)(*(part.detach() for part in after)))


def release(objective: Objective) -> None:
    """Let go of what a forward pass without a backward pass has left gathered."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(objective, FSDPModule):
        objective.reshard()


@torch.no_grad()
def fill(model: nn.Module, device: torch.device, values: Callable[[str, Tensor], object]) -> None:
    """Give a model on the meta device memory and values.

    values: fills a whole parameter in place, given its name and a tensor on the CPU. Of one that is
    split each rank keeps its part, and has no more than one whole parameter at a time.
    """
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        if device.type == "cpu" and not _is_split(parameter):
            values(name, parameter)
            continue
        whole = torch.empty(parameter.shape, dtype=parameter.dtype)
        values(name, whole)
        put(parameter, whole)


@torch.no_grad()
def put(parameter: Tensor, whole: Tensor) -> None:
    """Set a parameter, split or not, from a tensor that every rank has."""
    whole = whole.to(parameter.device)
    if not _is_split(parameter):
        parameter.copy_(whole)
        return
    from torch.distributed.tensor import DTensor, Replicate

    assert isinstance(parameter, DTensor)
    mesh = parameter.device_mesh
    same = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    parameter.to_local().copy_(same.redistribute(mesh, parameter.placements).to_local())


def whole_weights(model: nn.Module, ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter in full, one at a time; all ranks must walk through them."""
    for name, parameter in model.named_parameters():
        whole = parameter.detach()
        if _is_split(parameter):
            from torch.distributed.tensor import DTensor

            assert isinstance(whole, DTensor)
            with ranks.watched():
                whole = whole.full_tensor()
        yield name, whole


def _is_split(parameter: Tensor) -> bool:
    return hasattr(parameter, "placements")
