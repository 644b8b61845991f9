"""Where a step went wrong: the tensor, the row, the documents in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from griffin.checkpoints.staging import staged_file
from griffin.model import Griffin, State
from griffin.train.data.mixture import Mixture
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import row_nats
from griffin.train.recipe import Recipe


class DivergedError(RuntimeError):
    """The loss or the gradient is no longer a number."""


def advice(recipe: Recipe, *, begun: bool) -> str:
    """Say what may keep a run from diverging. begun: whether a step has been done, and so a rate
    been used."""
    if begun or recipe.tune is None:
        return "A lower train.learning_rate or a longer train.warmup_steps may help"
    of = {"pairs": "tune.beta and tune.alpha", "prompts": "the rewards and tune.alpha"}
    what = of.get(recipe.tune.reads, "tune.alpha")
    return f"No learning rate has been used yet: look at {what}, and at the model's own weights"


def explain(
    model: Griffin,
    batches: Sequence[TrainBatch],
    dtype: torch.dtype,
    packer: Mixture,
    row: int,
    carried: Sequence[State] = (),
) -> str:
    """Say in a sentence what is not finite in a step, which was the rows from `row` on.

    The step is run again, a row at a time. Gradients are left as they are. carried: of each source
    the state that the step's rows went on with, where they did.
    """
    states = list(carried)
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return f"{name} is not finite before the step"
    kept = [parameter.grad for parameter in model.parameters()]
    try:
        for batch in batches:
            source, _ = packer.place(row)
            ends = list[State]()
            for place in range(len(batch.tokens)):
                one = batch.rows(slice(place, place + 1), model.device)
                said, end = _of_row(
                    model, one, dtype, states[source].select([place]) if states else None
                )
                if said:
                    return f"{said}, first in row {row}: {_documents(packer, row)}"
                ends.append(end)
                row += 1
            if states:
                states[source] = State.cat(ends)
    finally:
        for parameter, gradient in zip(model.parameters(), kept, strict=True):
            parameter.grad = gradient
    return "no row is to blame alone: the sum over the step's rows is not finite"


def keep_batch(path: Path, batches: Sequence[TrainBatch]) -> None:
    """Write the rows of a step to a file: tokens, targets, segment_pos and mask, (R, L) each.

    Raises OSError, and leaves no file, if it cannot be written.
    """
    names = ("tokens", "targets", "segment_pos", "mask")
    rows = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
    try:
        with staged_file(path) as part:
            save_file(rows, part)
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error


def _of_row(
    model: Griffin, batch: TrainBatch, dtype: torch.dtype, state: State | None
) -> tuple[str, State]:
    """Return what is first not finite when a row is computed, forward and back, or "" if nothing;
    and the state after it."""
    found = list[str]()

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(map(is_finite, _tensors(output))):
                found.append(f"the output of {name} is not finite")

        return hook

    hooks = [m.register_forward_hook(look(name)) for name, m in model.named_modules() if name]
    try:
        model.zero_grad()
        nats, after = row_nats(model, batch, dtype, state=state)
        after = after.map(Tensor.detach)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0], after
    if not math.isfinite(float(nats.detach())):
        return f"the loss is {float(nats.detach())}", after
    nats.backward()
    # Those nearest to the loss are computed first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not is_finite(parameter.grad):
            return f"the gradient of {name} is not finite", after
    return "", after


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for each in value for t in _tensors(each)] if isinstance(value, tuple | list) else []


def is_finite(tensor: Tensor) -> bool:
    """Say whether a tensor holds neither nan nor inf."""
    return bool(tensor.detach().isfinite().all())


def _documents(packer: Mixture, row: int) -> str:
    places = packer.documents(row)
    listed = ", ".join(f"{path} from token {first}" for path, first in places[:4])
    return listed + (f" and {len(places) - 4} more" if len(places) > 4 else "")
