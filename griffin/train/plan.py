"""What a run takes, before anything is read: bytes, by arithmetic and a probe of small twins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from griffin.model import Griffin, GriffinConfig, State
from griffin.model.layers import TOGETHER
from griffin.train.loss import TILE
from griffin.train.objective import Objective
from griffin.train.recipe import Recipe
from griffin.train.scale.sharded_files import FILE_BYTES

RUNTIME_BYTES = 400 << 20  # Python, torch and this package, resident without a model
_PROBED = 128  # tokens of a row of a twin
_VOCAB = 64
_LEAST_LENGTH = 64  # of a row that is offered


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How the memory of a run is divided, on each of its ranks. All in bytes but what says so.

    parameters:      weights, a number.
    weight_bytes:    of the weights; with several ranks, a part and what is gathered of others'.
    copy_bytes:      of the weights' bfloat16 copies, which products in bfloat16 make of float32.
    gradient_bytes, moment_bytes: of the gradient (likewise), and of AdamW's two moments.
    activation_bytes: what a micro-batch keeps for its backward pass, and one block's gradients.
    checkpointed_bytes: the same, if only each block's input (`checkpoint`) were kept.
    loss_bytes:      tiles of logits. runtime_bytes: the process without a model.
    between_bytes:   of what is there between steps, when copies, gradient, activations, loss and
                     what was gathered are not: a file that is written, the model that is exported
                     and measured, all weights where one of several ranks draws samples.
    carried_bytes:   of the states that `carry` goes on with, from before a step and after it.
    tokens_per_step, steps: of the recipe; steps are 0 where its budget is in epochs.
    frozen_bytes:    of weights that are not trained; trained: how many numbers are, where not all.
    """

    parameters: int
    weight_bytes: int
    copy_bytes: int
    gradient_bytes: int
    moment_bytes: int
    activation_bytes: int
    checkpointed_bytes: int
    loss_bytes: int
    runtime_bytes: int
    tokens_per_step: int
    steps: int
    between_bytes: int = 0
    carried_bytes: int = 0
    frozen_bytes: int = 0
    trained: int = 0

    @property
    def state_bytes(self) -> int:
        """Bytes of what is trained, its gradient and moments."""
        return self.weight_bytes + self.gradient_bytes + self.moment_bytes

    @property
    def total_bytes(self) -> int:
        step = self.copy_bytes + self.gradient_bytes + self.activation_bytes + self.loss_bytes
        stays = self.frozen_bytes + self.weight_bytes + self.moment_bytes + self.carried_bytes
        return self.runtime_bytes + stays + max(step, self.between_bytes)


def plan_training(recipe: Recipe, ranks: int = 1) -> TrainingPlan:
    """Return what a run takes. ranks: processes that share weights and rows.

    Weights, gradient and moments are exact. Activations are those of this machine's implementations
    (`kept_bytes`), for rows of one document each.
    """
    config, train = recipe.model, recipe.train
    with torch.device("meta"):
        model = Griffin(config)
    count = sum(p.numel() for p in model.parameters())
    blocks = [sum(p.numel() for p in block.parameters()) for block in model.model.layers]
    size = getattr(torch, train.weights).itemsize
    part = -(-count // ranks)
    # What belongs to no block stays gathered through a step, and so does its gradient.
    gathered = 0 if ranks == 1 else count - sum(blocks) + max(blocks)
    copies = 2 * count if (train.weights, train.dtype) == ("float32", "bfloat16") else 0
    tokens = -(-train.rows * train.length // ranks)
    kept = kept_bytes(config, train.dtype, train.weights)
    stream = config.width * size
    one = max(kept[kind] for kind in config.block_types)
    back = _given_back(recipe, ranks, one, kept["mlp"])
    full = kept["ends"] + sum(kept[kind] for kind in config.block_types) + back
    every = train.keep_every or 1
    inputs = -(-config.num_layers // every) * stream
    checkpointed = kept["ends"] + inputs + every * one + back
    return TrainingPlan(
        parameters=count,
        weight_bytes=(part + gathered) * size,
        copy_bytes=copies,
        gradient_bytes=(part + gathered) * size,
        moment_bytes=2 * part * size,
        activation_bytes=int(tokens * (checkpointed if train.keep_every else full)),
        checkpointed_bytes=int(tokens * checkpointed),
        loss_bytes=4 * 4 * TILE,
        runtime_bytes=RUNTIME_BYTES,
        between_bytes=max(0, _between(recipe, ranks, model, copies) - gathered * size),
        carried_bytes=_carried(recipe, ranks),
        tokens_per_step=train.tokens_per_step,
        steps=0 if train.epochs else train.total_steps,
    )


def _between(recipe: Recipe, ranks: int, model: Griffin, copies: int) -> int:
    """Return the most bytes that the writer has beside its part of weights and moments, between
    steps. copies: bytes of the weights' copies for products in bfloat16."""
    numbers = [p.numel() for p in model.parameters()]
    count, size = sum(numbers), getattr(torch, recipe.train.weights).itemsize
    part, largest = -(-count // ranks) * size, max(numbers) * size
    written = saving_bytes(3 * part, -(-largest // ranks))
    exported = count * torch.bfloat16.itemsize + (largest if ranks > 1 else 0)
    if recipe.tune is not None:
        return max(written, exported)
    measured = count * torch.float32.itemsize - 2 * part  # the moments are given up for it
    sampled = count * size + copies if ranks > 1 and recipe.train.prompts else 0
    return max(written, exported, measured, sampled)


def saving_bytes(saved: int, largest: int) -> int:
    """Return the bytes that torch's writer takes beside what it saves: a file's, in memory.

    saved: bytes in all; largest: of one tensor, which is never divided.
    """
    return min(saved, max(FILE_BYTES, largest))


def _carried(recipe: Recipe, ranks: int) -> int:
    train = recipe.train
    if not train.carry:
        return 0
    state = State.zeros(recipe.model, 1, dtype=getattr(torch, train.dtype), device="meta")
    return 2 * _rows(recipe, ranks) * len(recipe.data.sources) * (state.nbytes + state.pos.nbytes)


def _given_back(recipe: Recipe, ranks: int, one: float, mlp: float) -> float:
    """Return the bytes a token of a block's gradients that are there beside all that it keeps.

    one: bytes a token that the block keeps, and that its gradients take; mlp: its MLP's of these.
    """
    train, tune = recipe.train, recipe.tune
    rows = _rows(recipe, ranks)
    length = train.length / min(ranks, train.sequence_ranks)
    pairs = tune is not None and tune.method in ("dpo", "jbond")
    if rows > 1 or pairs or length <= TOGETHER:
        return one
    # An MLP reads such a row in pieces, and has a piece's gradients and what they are made of; when
    # the rest of the block has its own, what the MLP kept is gone.
    return max(2 * mlp * TOGETHER / length, one - 2 * mlp)


def _rows(recipe: Recipe, ranks: int) -> int:
    """Return how many rows of a micro-batch a rank reads, alone or with others."""
    return -(-recipe.train.rows // max(1, ranks // recipe.train.sequence_ranks))


def check_memory(recipe: Recipe, there: int, ranks: int = 1) -> None:
    """Raise ValueError if a run does not fit into `there` bytes a rank, and say what would."""
    plan = plan_training(recipe, ranks)
    if plan.total_bytes <= there:
        return
    fits = [words for words, other in _smaller(recipe, ranks) if _takes(other, ranks) <= there]
    each = plan.state_bytes / plan.parameters
    raise ValueError(
        f"this run takes about {plan.total_bytes / 1e9:.1f} GB: {plan.state_bytes / 1e9:.1f} of"
        f" weights, gradient and moments ({each:.3g} bytes for each of {plan.parameters:,}"
        f" weights), {plan.activation_bytes / 1e9:.1f} of activations; there are"
        f" {there / 1e9:.1f} GB. "
        + (
            f"What would fit: {'; or '.join(fits[:3])}"
            if fits
            else "No other setting would fit here"
        )
        + ". `griffin plan --train` shows the parts; --force tries it all the same"
    )


def _takes(recipe: Recipe, ranks: int) -> int:
    return plan_training(recipe, ranks).total_bytes


def _smaller(recipe: Recipe, ranks: int) -> Iterator[tuple[str, Recipe]]:
    """Yield recipes of as many tokens a step that take less memory, with what differs in words."""
    train = recipe.train
    narrow = {"weights": "bfloat16", "dtype": "bfloat16"}
    readers = min(train.rows, max(1, ranks // train.sequence_ranks))
    fewer = {"rows": readers, "accumulation": train.accumulation * train.rows // readers}
    blocks = {"checkpoint": "blocks"}
    changes: list[dict[str, Any]] = [narrow, fewer, blocks, fewer | blocks, narrow | fewer]
    changes.append(narrow | fewer | blocks)
    for parts in (each for each in (2, 4, 8, 16) if train.length // each >= _LEAST_LENGTH):
        rows = {"accumulation": fewer["accumulation"] * parts, "length": train.length // parts}
        changes.append(narrow | fewer | blocks | rows)
    seen = [train]
    for change in changes:
        changed = dataclasses.replace(train, **change)
        if changed in seen:
            continue
        seen.append(changed)
        words = [f"train.{k} = {v!r}" for k, v in change.items() if getattr(train, k) != v]
        yield ", ".join(words), dataclasses.replace(recipe, train=changed)


@cache
def kept_bytes(config: GriffinConfig, dtype: str, weights: str) -> dict[str, float]:
    """Return the bytes a token that a forward pass keeps for the backward one.

    Of a block of each kind ("recurrent", "attention"), of the MLP in it ("mlp": what grows with its
    width) and of all else ("ends"). What is kept is linear in the model's widths, so models of few
    and narrow layers, with the same heads and gates, tell it: they are run with the implementations
    that would train the model.
    """
    heads, gates = config.num_heads, config.num_gate_blocks
    d, e, f = (16 * heads, 32 * heads), (16 * gates, 32 * gates), (64, 128)
    found = dict[str, float]()
    for kind in dict.fromkeys(config.block_types):
        widths = [(d[0], e[0], f[0]), (d[1], e[0], f[0]), (d[0], e[1], f[0]), (d[0], e[0], f[1])]
        per_layer, ends = list[float](), list[float]()
        for width, lru, mlp in widths:
            twins = [
                config.replace(
                    vocab_size=_VOCAB,
                    width=width,
                    lru_width=lru,
                    mlp_width=mlp,
                    block_types=(kind,) * layers,
                )
                for layers in (1, 2)
            ]
            one, two = (_kept(twin, dtype, weights) for twin in twins)
            per_layer.append(two - one)
            ends.append(2 * one - two)
        full = (config.width, config.lru_width, config.mlp_width)
        found[kind] = _extended(widths, per_layer, full)
        found["ends"] = _extended(widths, ends, full)
        found["mlp"] = (per_layer[3] - per_layer[0]) / (f[1] - f[0]) * config.mlp_width
    return found


def _extended(
    widths: Sequence[Sequence[int]], values: Sequence[float], full: Sequence[int]
) -> float:
    """Return at `full` what is c + c0 D + c1 E + c2 F and has these values at these widths."""
    rows = np.array([(1, *width) for width in widths], dtype=np.float64)
    found = np.linalg.solve(rows, np.array(values)) @ np.array((1, *full), dtype=np.float64)
    return max(0.0, float(found))


def _kept(config: GriffinConfig, dtype: str, weights: str) -> float:
    """Return the bytes that a model keeps of each token of a row, by two rows of two lengths."""
    model = Griffin(config).to(getattr(torch, weights))
    objective = Objective(model, getattr(torch, dtype))
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    totals = list[int]()
    for length in (_PROBED, 2 * _PROBED):
        found: dict[int, Tensor] = {}

        def keep(tensor: Tensor, found: dict[int, Tensor] = found) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in known:
                found[tensor.untyped_storage().data_ptr()] = tensor.detach()
            return tensor.detach()  # a result that its own function keeps would never be freed

        tokens = torch.zeros(1, length, dtype=torch.int64)
        positions = torch.arange(length)[None]
        mask = torch.ones(1, length, dtype=torch.bool)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            nats, _ = objective(tokens, tokens, positions, mask)
        totals.append(sum(t.untyped_storage().nbytes() for t in found.values()))
        del nats
    return (totals[1] - totals[0]) / _PROBED
