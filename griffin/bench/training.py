"""What a training step costs: speed beside the products' rate, memory, and what it keeps.

A learner is any model with the loss of its rows; ours and a rival's take the same step, with the
same optimiser, on the same random rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from griffin.bench import work
from griffin.bench.measurement import Measurement, Report, measured
from griffin.bench.memory import forget_peak, resident
from griffin.bench.profile import Profile
from griffin.bench.rates import SECONDS, matrix_rate
from griffin.model import Griffin, GriffinConfig
from griffin.train.data.rows import TrainBatch
from griffin.train.objective import Objective
from griffin.train.optim import make_optimizer
from griffin.train.recipe import TrainRecipe

ROWS = 4096  # of the products whose rate is measured, at most
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a step is taken: rows x length tokens, the type of its products, CPU threads."""

    rows: int
    length: int
    dtype: str = "float32"
    threads: int = 1

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def batch(self, vocab_size: int, seed: int = 0) -> TrainBatch:
        """Return random rows, each one document."""
        random = torch.Generator().manual_seed(seed)
        shape = self.rows, self.length
        tokens, targets = (torch.randint(vocab_size, shape, generator=random) for _ in range(2))
        positions = torch.arange(self.length).expand(shape)
        return TrainBatch(tokens, targets, positions, torch.ones(shape, dtype=torch.bool))


class Learner:
    """A model that can be trained on rows.

    name:       of the program. shape: the model, in words.
    nats:       from rows to the summed nats of their targets, with gradients.
    operations: of a token of a row of so many tokens, forward and backward.
    """

    def __init__(
        self,
        name: str,
        shape: str,
        model: nn.Module,
        nats: Callable[[TrainBatch], Tensor],
        operations: Callable[[int], float],
    ) -> None:
        self.name, self.shape, self.model = name, shape, model
        self.nats, self.operations = nats, operations
        recipe = TrainRecipe(steps=1, learning_rate=1e-4)
        self.optimizer = make_optimizer(model, recipe)

    def step(self, batch: TrainBatch) -> float:
        """Take one step; return the nats a target had before it."""
        self.optimizer.zero_grad()
        nats = self.nats(batch)
        (nats / batch.targets.numel()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(nats.detach()) / batch.targets.numel()

    def kept_bytes(self, batch: TrainBatch) -> int:
        """Return the bytes that a forward pass keeps for the backward one, weights left out."""
        known = [*self.model.parameters(), batch.tokens, batch.targets, batch.segment_pos]
        ours = {t.untyped_storage().data_ptr() for t in known}
        found: dict[int, int] = {}

        def keep(t: Tensor) -> Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in ours:
                found[storage.data_ptr()] = storage.nbytes()
            return t.detach()  # a result that its own function keeps would never be freed

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            nats = self.nats(batch)
        del nats  # until here nothing that was kept could be freed, so no address came twice
        return sum(found.values())


def griffin_learner(config: GriffinConfig, dtype: str, keep_every: int = 0) -> Learner:
    """Return ours: a model with random weights, and the step of `griffin train`.

    keep_every: as of `Griffin`.
    """
    torch.manual_seed(0)
    model = Griffin(config)
    model.keep_every = keep_every
    objective = Objective(model, DTYPES[dtype])
    weights = work.trained_weights(model)

    def nats(batch: TrainBatch) -> Tensor:
        return objective(batch.tokens, batch.targets, batch.segment_pos, batch.mask)[0]

    return Learner(
        "griffin",
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M, {config.width} wide,"
        f" {config.num_layers} layers, window {config.attention_window_size}",
        model,
        nats,
        lambda length: work.training_operations(config, weights, length),
    )


@dataclass
class _Turns:
    learner: Learner
    seconds: list[float] = field(default_factory=list)
    loss: float = 0.0
    kept: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)


def measure(
    report: Report,
    learners: Sequence[Learner],
    setting: Setting,
    shapes: Iterable[tuple[int, int, int]],
    vocab_size: int,
    rounds: int = 3,
    *,
    profile: bool = False,
    probe: float = SECONDS,
) -> list[Measurement]:
    """Let learners take steps by turns, the matrix products' rate before each; append to `report`.

    shapes:  of the products whose rate is measured (`work.matrix_shapes`).
    profile: also say where a step's time goes, in one more step.
    probe:   seconds of a probe.
    A first step of each is not counted. Peaks are those of the process, all learners together.
    """
    torch.set_num_threads(setting.threads)
    shapes, rows = list(shapes), min(setting.tokens, ROWS)
    turns = [_Turns(learner) for learner in learners]
    batch = setting.batch(vocab_size)
    for turn in turns:
        turn.kept = turn.learner.kept_bytes(batch) / setting.tokens
        turn.learner.step(batch)
    rates: list[float] = []
    for number in range(rounds):
        rates.append(matrix_rate(shapes, rows, setting.dtype, probe))
        batch = setting.batch(vocab_size, 1 + number)
        for turn in turns:
            forget_peak()
            begun = time.perf_counter()
            turn.loss = turn.learner.step(batch)
            turn.seconds.append(time.perf_counter() - begun)
            turn.memory = resident()
    rate = statistics.median(rates)
    report.rates[f"{setting.dtype} product, {rows} rows"] = rate
    found = [_measurement(turn, setting, rate) for turn in turns]
    if profile:
        for one, turn in zip(found, turns, strict=True):
            one.groups.update(Profile.of(lambda turn=turn: turn.learner.step(batch)).groups)
    report.measurements += found
    return found


def _measurement(turn: _Turns, setting: Setting, rate: float) -> Measurement:
    place = {
        "program": turn.learner.name,
        "model": turn.learner.shape,
        "format": setting.dtype,
        "threads": setting.threads,
        "batch": setting.rows,
        "context": setting.length,
    }
    needed = {"bytes": 0.0, "operations": turn.learner.operations(setting.length)}
    samples = [setting.tokens / seconds for seconds in turn.seconds]
    return measured(
        "train",
        place,
        samples,
        needed,
        None,
        rate,
        turn.memory,
        kept_bytes_per_token=turn.kept,
        loss=turn.loss,
    )
