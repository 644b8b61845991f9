"""A training run, whatever it learns from: a folder, a budget, a log, checkpoints, a clean stop."""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from griffin.train.allocator import return_large_blocks
from griffin.train.checkpoint import (
    RunProgress,
    find_checkpoint,
    latest_checkpoint,
    prune,
    resume,
    save_best,
    save_checkpoint,
    update_progress,
)
from griffin.train.data.prepare import RunData, prepare_data
from griffin.train.diverged import DivergedError, advice, is_finite
from griffin.train.folder import RunFolder
from griffin.train.optim import learning_rate, make_optimizer
from griffin.train.recipe import Recipe, TrainRecipe
from griffin.train.report import Reporter
from griffin.train.run_log import RunLog
from griffin.train.scale.ranks import Ranks
from griffin.train.stochastic import local_part
from griffin.train.stopping import Interrupted, StopRequest
from griffin.train.watching import watch

_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Validation:
    """Say what a validation found. worth: the run's best is where it is least; entries: for the
    log."""

    worth: float
    entries: Mapping[str, Any]


class TrainingRun(ABC):
    """Optimise one module by one recipe in one folder.

    The folder holds recipe.json, the tokenizer, data/ (encoded documents), log.jsonl and
    checkpoints/. A run of the same recipe that it holds is continued; checkpoints of another are
    refused with a ValueError, and so is a folder in which another process trains: it is this one's
    until `close`, or the end of a `with` block. device: "cpu", "cuda", ...
    extend: go on with a run whose budget was another (`RunFolder.claimed`). ranks: the
    processes that train together, each with such a run; every one must call the same methods.
    Making one prepares the data; SIGINT or SIGTERM then raises `Interrupted`.

    What is learned from what is a subclass's: it reads the data (`_read_data`), builds what is
    optimised (`_build`), and does a step and a validation.
    """

    plan: TrainRecipe  # the recipe's [train] with its budget in steps; set by `_read_data`
    learner: nn.Module  # what is optimised and kept: its parameters that have gradients

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        reporter: Reporter | None = None,
        device: str = "cpu",
        *,
        extend: bool = False,
        ranks: Ranks | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.recipe, self.out, self.skip_bad = recipe, out, skip_bad
        given = ranks or Ranks()
        self.check(recipe, given)
        self.ranks = given.reading_together(recipe.train.sequence_ranks)
        writes = self.ranks.is_writer
        self.reporter = (reporter or Reporter()) if writes else Reporter(quiet=True)
        self.device = torch.device(device)
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[recipe.train.dtype]
        self.stop = StopRequest(self.reporter.say)
        self.matrix_limit: float | None = None  # tokens/s, if matrix products were all of a step
        self.folder = RunFolder(out, writes, self.reporter.say)
        try:
            with self.stop.heard():
                self._open(extend)
        except BaseException:
            self.close()
            raise

    @classmethod
    def check(cls, recipe: Recipe, ranks: Ranks) -> None:
        """Raise ValueError for what these ranks cannot do with a recipe; nothing is read for it."""
        ranks.check_together(recipe.train.sequence_ranks)

    def _open(self, extend: bool) -> None:
        recipe = self.recipe
        with self.ranks.writer_first(), self.folder.claimed(recipe, extend) as claim:
            self.data: RunData = prepare_data(
                recipe,
                self.out,
                self.reporter,
                claim,
                self.stop.check,
                workers=torch.get_num_threads(),
                skip_bad=self.skip_bad,
            )
            self._read_data()
        if recipe.train.keep_every:  # who keeps little for the backward pass has little memory
            return_large_blocks()
        self._build(begun=latest_checkpoint(self.checkpoints) is not None)
        self.optimizer = make_optimizer(self.learner, recipe.train)
        found = resume(
            self.checkpoints,
            self.learner,
            self.optimizer,
            self.reporter.say,
            self.ranks,
            self._beside(),
        )
        if self.ranks.is_writer:
            prune(self.checkpoints, recipe.train.keep)  # a killed run may have come to it no more
        self._kept = found.step if found else None  # of which step the newest checkpoint is
        self.progress = found or RunProgress(recipe="")
        self.progress.recipe = recipe.digest()
        self._check_stop()

    @abstractmethod
    def _read_data(self) -> None:
        """Set `plan`, and whatever rows are read from; `data` is there, the folder is not yet the
        recipe's."""

    @abstractmethod
    def _build(self, *, begun: bool) -> None:
        """Set `learner`. begun: its weights are about to come from a checkpoint of the run."""

    @abstractmethod
    def step(self) -> dict[str, Any]:
        """Do one optimiser step and return its log entry, with "step" and "loss", which is
        None where nothing was to be learned.

        Raises `Interrupted` between micro-batches if a stop is asked for: nothing has changed then.
        """

    @abstractmethod
    def validate(self) -> Validation:
        """Measure the model as it stands on what was held out.

        May raise `Interrupted` if a stop is asked for, on all ranks: it is done again then.
        """

    def _beside(self) -> Mapping[str, Tensor]:
        """Return what a checkpoint keeps beside the learner and its moments; filled on resuming."""
        return _NOTHING

    def _samples(self) -> list[dict[str, str]]:
        """Return what the recipe's prompts become now; all ranks must call this.

        May raise `Interrupted` as `validate` does.
        """
        return []

    @property
    def checkpoints(self) -> Path:
        return self.folder.checkpoints

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM from the block's beginning to its end, whatever is done in it.

        `Interrupted` leaves it with the newest checkpoint: the one that is gone on from.
        """
        with self.stop.heard():
            try:
                yield
            except Interrupted as stop:
                raise Interrupted(stop.path or latest_checkpoint(self.checkpoints)) from None

    def close(self) -> None:
        """Let other processes train in the folder."""
        self.folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self) -> RunProgress:
        """Train until the budget is spent, and leave a checkpoint of the end.

        SIGINT and SIGTERM finish the micro-batch at hand, write a checkpoint of the last whole step
        and raise `Interrupted`; a second one stops at once. A step whose held-out figures or
        samples were interrupted has them taken first when the run goes on. Raises DivergedError
        when loss or gradient are no numbers, before the weights change.
        """
        plan = self.plan
        begun = saved = time.monotonic()
        before = self.progress.seconds
        owed, self.progress.owed = self.progress.owed, None
        _, first = plan.course(0)
        if first.warmup_steps >= first.total_steps:
            self.reporter.say(
                f"train.warmup_steps is {first.warmup_steps}, the budget {first.total_steps} steps:"
                " the learning rate rises to the end"
            )
        with (
            self.stop.heard(),
            self.ranks.watched(),
            self.folder.log(self.progress.step - (owed is not None)) as log,
            self.reporter.training(plan, self.progress) as show,
        ):
            if log.bad:
                self.reporter.say(
                    f"log.jsonl had {log.bad} lines that cannot be read; they are dropped"
                )
            if owed is not None:
                self._finish(owed, log, show)
                self.save()
            while self.progress.step < plan.total_steps:
                started, tokens = time.monotonic(), self.progress.tokens
                try:
                    entry = self.step()
                except Interrupted:
                    raise Interrupted(self.save() if self.progress.step else None) from None
                now = time.monotonic()
                self.progress.seconds = before + now - begun
                entry["tokens_per_second"] = (self.progress.tokens - tokens) / (now - started)
                entry["seconds"] = self.progress.seconds
                watch(entry, self.progress, self.device, self.matrix_limit, self.reporter.say)
                self._finish(entry, log, show)
                last = self.progress.step == plan.total_steps
                due = time.monotonic() - saved > plan.checkpoint_minutes * 60
                stop, due = (number > 0 for number in self.ranks.sum(self.stop.asked, due))
                if stop or last or due:
                    path, saved = self.save(), time.monotonic()
                    if stop and not last:
                        raise Interrupted(path)
        if count := self.progress.without_targets:
            self.reporter.say(
                f"{count} of {plan.total_steps} steps had no target: they changed no weight"
            )
        return self.progress

    def save(self) -> Path:
        """Write a checkpoint of this moment and return its path.

        One of this step that is there stays: it may be the only one, and a kill would find none
        while it is replaced. Raises DivergedError, and writes nothing, for weights that a step made
        nan or inf.
        """
        if self._kept == self.progress.step:
            path = find_checkpoint(self.checkpoints, self._kept)
            update_progress(path, self.progress, self.ranks)
            return path
        self._check_weights()
        path = save_checkpoint(
            self.checkpoints,
            self.learner,
            self.optimizer,
            self.progress,
            self.recipe.train.keep,
            self.ranks,
            self._beside(),
        )
        self._kept = self.progress.step
        return path

    def account(self) -> dict[str, Any]:
        """Return, for results.json, how far the run is and by which recipe."""
        return {
            "steps": self.progress.step,
            "tokens": self.progress.tokens,
            "seconds": round(self.progress.seconds, 1),
            "steps_without_targets": self.progress.without_targets,
            "recipe": self.recipe.to_dict(),
        }

    def _update(self, loss: float | None, rows: int, tokens: int) -> dict[str, Any]:
        """Clip the gradient that is there, change the weights, count; return the log entry.

        loss: of the step, for the log; None if it had no target: weights and moments stay then.
        rows, tokens: that it read. Raises DivergedError, with the weights as they were, if loss or
        gradient are not finite.
        """
        rate, norm = learning_rate(self.progress.step, self.plan), None
        if loss is None:
            self.progress.without_targets += 1
        else:
            norm = self._clip()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._diverged(loss, norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.progress.step += 1
        self.progress.rows += rows
        self.progress.tokens += tokens
        return {
            "step": self.progress.step,
            **self.plan.stage_entry(self.progress.step - 1),
            "tokens": self.progress.tokens,
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
        }

    def _finish(
        self, entry: dict[str, Any], log: RunLog, show: Callable[[dict[str, Any]], None]
    ) -> None:
        """Take the samples and held-out figures that are due after a step; log and show its entry.

        A stop meanwhile leaves a checkpoint that owes them, and raises `Interrupted`.
        """
        self.optimizer.zero_grad()  # of no use from here on, and as large as the weights
        plan, step = self.plan, self.progress.step
        measured = step == plan.total_steps or step % plan.eval_every == 0
        try:
            self._take_samples(entry, measured)
            found = self.validate() if measured else None
        except Interrupted:
            self.progress.owed = entry
            raise Interrupted(self.save()) from None
        if found is not None:
            entry |= found.entries
            self._keep_best(found.worth)
        noted = measured or {"spike", "samples"} & entry.keys()
        if noted or step % plan.log_every == 0:
            log.add(entry)
        show(entry)

    def _take_samples(self, entry: dict[str, Any], measured: bool) -> None:
        """Put samples into a step's entry and say them, if they are due and not there yet."""
        train = self.recipe.train
        every = train.sample_every
        due = entry["step"] % every == 0 if every else measured
        if train.prompts and due and "samples" not in entry:
            if samples := self._samples():
                entry["samples"] = samples
            for each in samples:
                self.reporter.say(f"step {entry['step']}: {each['prompt']}|{each['text']}")

    def _keep_best(self, worth: float) -> None:
        """Keep the weights apart if no validation before has found better ones."""
        if self.progress.best is None or worth < self.progress.best:
            self._check_weights()
            self.progress.best = worth
            if self.recipe.train.keep_best:
                save_best(self.checkpoints, self.learner, self.progress, self.ranks)

    def _check_stop(self, done: bool = False) -> bool:
        """Raise `Interrupted` if any rank was asked to stop; else say whether any is `done`.

        All must call this.
        """
        stop, ended = self.ranks.sum(self.stop.asked, done)
        if stop:
            raise Interrupted
        return ended > 0

    def _check_weights(self) -> None:
        """Raise DivergedError for weights that are not finite; all ranks must call this."""
        own = ((name, local_part(each)) for name, each in self.learner.named_parameters())
        bad = next((name for name, part in own if not is_finite(part)), "")
        if self.ranks.any(bool(bad)):
            raise DivergedError(
                f"step {self.progress.step} left {bad or 'a tensor of another rank'} with weights"
                f" that are not finite; they are not kept. Weights from before are in"
                f" {latest_checkpoint(self.checkpoints) or 'no checkpoint yet'}. {self._advice()}"
            )

    def _clip(self) -> float:
        """Clip the gradient in place and return its norm before that."""
        limit = self.recipe.train.clip or math.inf
        norm: Any = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), limit)
        return float(norm if self.ranks.mesh is None else norm.full_tensor())

    def _diverged(self, loss: float, norm: float) -> RuntimeError:
        """Return the error for a step that is to be thrown away."""
        return DivergedError(
            f"step {self.progress.step + 1}: the loss is {loss}, the gradient's norm {norm}."
            f" Weights from before are in"
            f" {latest_checkpoint(self.checkpoints) or 'no checkpoint yet'}. {self._advice()}"
        )

    def _advice(self) -> str:
        return advice(self.recipe, begun=self.progress.step > 0)
