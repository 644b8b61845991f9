"""The training loop: recipe in, weights, log and checkpoints out."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from griffin.model import Griffin, State
from griffin.train.carry import new_states, state_tensors, whole_states
from griffin.train.checkpoint import (
    RunProgress,
    find_checkpoint,
    latest_checkpoint,
    prune,
    resume,
    save_best,
    save_checkpoint,
)
from griffin.train.data.mixture import Mixture
from griffin.train.data.prepare import prepare_data
from griffin.train.diverged import explain, keep_batch
from griffin.train.evaluate import bits_in_rows, validation_documents
from griffin.train.folder import RunFolder
from griffin.train.objective import Objective
from griffin.train.optim import learning_rate, make_optimizer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks, WriterFailedError
from griffin.train.scale.sharding import release, shard, whole_weights
from griffin.train.start import fill_model
from griffin.train.stopping import Interrupted, StopRequest
from griffin.train.watching import peak_bytes, sample, spike


class DivergedError(RuntimeError):
    """The loss or the gradient is no longer a number."""


class Trainer:
    """Train one model by one recipe in one folder.

    The folder holds recipe.json, the tokenizer, data/ (encoded documents), log.jsonl and
    checkpoints/. A run of the same recipe that it holds is continued; one of another recipe is
    refused with a ValueError, and so is a folder in which another process trains: it is this one's
    until `close`, or the end of a `with` block. device: "cpu", "cuda", ...
    extend: go on with a run whose budget was another (`RunFolder.claimed`). ranks: the
    processes that train together, each with such a Trainer; every one must call the same methods.
    Making one prepares the data; SIGINT or SIGTERM then raises `Interrupted`.
    """

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
        self.ranks = (ranks or Ranks()).reading_together(recipe.train.sequence_ranks)
        writes = self.ranks.is_writer
        self.reporter = (reporter or Reporter()) if writes else Reporter(quiet=True)
        self.device = torch.device(device)
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[recipe.train.dtype]
        self.stop = StopRequest(self.reporter.say)
        self.matrix_limit: float | None = None  # tokens/s, if matrix products were all of a step
        self.folder = RunFolder(out, writes)
        self._share = self.ranks.share(recipe.train.rows)
        try:
            with self.stop.heard():
                self._open(extend)
        except BaseException:
            self.close()
            raise

    def _open(self, extend: bool) -> None:
        recipe, out = self.recipe, self.out
        with self.ranks.writer_first(), self.folder.claimed(recipe, extend) as known:
            self.data = prepare_data(
                recipe,
                out,
                self.reporter,
                known,
                self.stop.check,
                workers=torch.get_num_threads(),
                skip_bad=self.skip_bad,
            )
            stores = {source.name: source.train for source in self.data.sources}
            self.packer, self.plan = Mixture.of(recipe, stores)
            self.folder.rows_in = self.packer.rows_in
            for name, packer in ((source.name, source.packer) for source in self.packer.sources):
                if packer.left_out:
                    what = "rows" if packer.packing == "cut" else "pieces of documents"
                    self.reporter.say(f"{name}: {packer.left_out} {what} have no target: left out")
        begun = latest_checkpoint(self.checkpoints) is not None
        with torch.device("meta"):
            self.model = Griffin(recipe.model).to(getattr(torch, recipe.train.weights))
        self.model.keep_every = recipe.train.keep_every
        self.objective = self._objective()
        shard(self.objective, self.ranks)
        fill_model(self.model, recipe, self.device, drawn=not begun)
        self.optimizer = make_optimizer(self.model, recipe.train)
        # With `carry`, what this rank's rows go on with, a state a source.
        self.carried = list[State]()
        if self.plan.carry:
            rows, sources = self._share.stop - self._share.start, len(self.packer.sources)
            dtype = self.model.dtype if self.dtype == torch.float32 else self.dtype
            self.carried = new_states(recipe.model, sources, rows, dtype, self.device)
        found = resume(
            self.checkpoints,
            self.model,
            self.optimizer,
            self.reporter.say,
            self.ranks,
            state_tensors(self.carried, self.ranks),
        )
        if self.ranks.is_writer:
            prune(self.checkpoints, recipe.train.keep)  # a killed run may have come to it no more
        self._kept = found.step if found else None  # of which step the newest checkpoint is
        self.progress = found or RunProgress(recipe="")
        self.progress.recipe = recipe.digest()
        self._validation = validation_documents(
            {source.name: source.held_out for source in self.data.sources}, recipe.train.eval_tokens
        )
        self.held_out = dict[str, float]()  # bits per byte by source, at the last `validate`
        self._check_stop()

    def _objective(self) -> Objective:
        if self.ranks.grid is None:
            return Objective(self.model, self.dtype)
        from griffin.train.scale.sequence import SplitObjective

        group = self.ranks.grid.get_group(1)
        return SplitObjective(self.model, group, self.dtype, carry=self.plan.carry)

    @property
    def checkpoints(self) -> Path:
        return self.folder.checkpoints

    def close(self) -> None:
        """Let other processes train in the folder."""
        self.folder.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self) -> RunProgress:
        """Train until the budget is spent, and leave a checkpoint of the end.

        SIGINT and SIGTERM finish the micro-batch at hand, write a checkpoint of the last whole step
        and raise `Interrupted`; a second one stops at once. Raises DivergedError when loss or
        gradient are no numbers, before the weights change.
        """
        plan = self.plan
        begun = saved = time.monotonic()
        before = self.progress.seconds
        _, first = plan.course(0)
        if first.warmup_steps >= first.total_steps:
            self.reporter.say(
                f"train.warmup_steps is {first.warmup_steps}, the budget {first.total_steps} steps:"
                " the learning rate rises to the end"
            )
        with (
            self.stop.heard(),
            self.ranks.watched(),
            self.folder.log(self.progress.step) as (log, bad),
            self.reporter.training(plan, self.progress) as show,
        ):
            if bad:
                self.reporter.say(
                    f"log.jsonl had {bad} lines that cannot be read; they are dropped"
                )
            while self.progress.step < plan.total_steps:
                started = time.monotonic()
                try:
                    entry = self.step()
                except Interrupted:
                    raise Interrupted(self.save() if self.progress.step else None) from None
                self.progress.seconds = before + time.monotonic() - begun
                entry["tokens_per_second"] = plan.tokens_per_step / (time.monotonic() - started)
                entry["seconds"] = self.progress.seconds
                last = self.progress.step == plan.total_steps
                measured = last or self.progress.step % plan.eval_every == 0
                self._watch(entry, measured)
                if measured:
                    entry["held_out_bits_per_byte"] = bits = self.validate()
                    self._keep_best(bits)
                    for name, told in entry.get("sources", {}).items():
                        told["held_out_bits_per_byte"] = self.held_out.get(name)
                noted = measured or {"spike", "samples"} & entry.keys()
                if noted or self.progress.step % plan.log_every == 0:
                    log.write(json.dumps(entry) + "\n")
                    log.flush()
                show(entry)
                due = time.monotonic() - saved > plan.checkpoint_minutes * 60
                stop, due = (number > 0 for number in self.ranks.sum(self.stop.asked, due))
                if stop or last or due:
                    path, saved = self.save(), time.monotonic()
                    if stop and not last:
                        raise Interrupted(path)
        return self.progress

    def step(self) -> dict[str, Any]:
        """Do one optimiser step, return its log entry; the loss is the mean over its targets.

        Raises `Interrupted` between micro-batches if a stop is asked for: no weight has changed.
        """
        plan = self.plan
        places = range(0, plan.rows * plan.accumulation, plan.rows)
        share = self._share.stop - self._share.start
        first = self.progress.rows + self._share.start
        batches = [self.packer.batch(first + place, share) for place in places]
        [count] = self.ranks.sum(sum(int(batch.mask.sum()) for batch in batches))
        count /= self.ranks.together  # who read together have counted the same targets
        count = max(count, 1)  # without a target there is no loss, and no gradient
        total, carried = 0.0, list(self.carried)
        self.optimizer.zero_grad()
        for number, batch in enumerate(batches):
            if number:
                self._check_stop()
            rows = batch.rows(slice(None), self.device)
            inputs = (rows.tokens, rows.targets, rows.segment_pos, rows.mask)
            if carried:
                source, _ = self.packer.place(first + places[number])
                nats, after = self.objective(*inputs, carried[source])
                carried[source] = after.clone()  # what it is a part of can go
            else:
                nats, _ = self.objective(*inputs)
            # Every target of the step weighs the same, whatever its micro-batch.
            (nats / count).backward()
            total += float(nats.detach())
        [total] = self.ranks.sum(total)
        norm = self._clip()
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise self._diverged(total / count, norm)
        rate = learning_rate(self.progress.step, plan)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.carried = carried
        self.progress.step += 1
        self.progress.rows += plan.rows * plan.accumulation
        self.progress.tokens += plan.tokens_per_step
        return {
            "step": self.progress.step,
            **plan.stage_entry(self.progress.step - 1),
            "tokens": self.progress.tokens,
            **self.packer.progress(self.progress.rows),
            "loss": total / count,
            "learning_rate": rate,
            "gradient_norm": norm,
        }

    def validate(self) -> float:
        """Return bits per byte on the first held-out documents, read in rows as in training.

        Those of each source are in `held_out` then.
        """
        length, bits = self.recipe.train.length, dict[str, float]()
        for name, (documents, _) in self._validation.items():
            bits[name] = bits_in_rows(self.objective, documents, length, ranks=self.ranks)
        release(self.objective)
        sizes = {name: size for name, (_, size) in self._validation.items()}
        self.held_out = {name: bits[name] / size for name, size in sizes.items()}
        return sum(bits.values()) / sum(sizes.values())

    def save(self) -> Path:
        """Write a checkpoint of this moment and return its path.

        One of this step that is there stays: it may be the only one, and a kill would find none
        while it is replaced.
        """
        keep = self.recipe.train.keep
        if self._kept == self.progress.step:
            return find_checkpoint(self.checkpoints, self._kept)
        path = save_checkpoint(
            self.checkpoints,
            self.model,
            self.optimizer,
            self.progress,
            keep,
            self.ranks,
            state_tensors(self.carried, self.ranks),
        )
        self._kept = self.progress.step
        return path

    def _watch(self, entry: dict[str, Any], measured: bool) -> None:
        """Put into a step's entry what is watched, and say what stands out."""
        entry["peak_bytes"] = peak_bytes(self.device)
        if self.matrix_limit is not None:
            entry["matrix_share"] = entry["tokens_per_second"] / self.matrix_limit
        if (found := spike(entry["loss"], self.progress)) is not None:
            entry["spike"] = found
            self.reporter.say(
                f"step {entry['step']}: the loss is {entry['loss']:.3f}, {found:.0f} deviations"
                f" above its running mean"
            )
        train = self.recipe.train
        every = train.sample_every
        if train.prompts and (entry["step"] % every == 0 if every else measured):
            model = self._whole_model()
            if self.ranks.is_writer:
                tokens = self.data.tokenizer, train.prompts, train.sample_tokens
                entry["samples"] = sample(model, *tokens, self.dtype)
                for each in entry["samples"]:
                    self.reporter.say(f"step {entry['step']}: {each['prompt']}|{each['text']}")

    def _keep_best(self, bits: float) -> None:
        """Keep the weights apart if no validation before has found fewer bits per byte."""
        if self.progress.best is None or bits < self.progress.best:
            self.progress.best = bits
            if self.recipe.train.keep_best:
                save_best(self.checkpoints, self.model, self.progress, self.ranks)

    def _check_stop(self) -> None:
        """Raise `Interrupted` if any rank was asked to stop; all must call this."""
        if self.ranks.any(self.stop.asked):
            raise Interrupted

    def _clip(self) -> float:
        """Clip the gradient in place and return its norm before that."""
        limit = self.recipe.train.clip or math.inf
        norm: Any = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return float(norm if self.ranks.mesh is None else norm.full_tensor())

    def _diverged(self, loss: float, norm: float) -> RuntimeError:
        """Return the error for a step that is to be thrown away; its rows are kept in a file.

        The writer looks at all the step's rows, with all the weights.
        """
        model, carried = self._whole_model(), whole_states(self.carried, self.ranks)
        if not self.ranks.is_writer:
            return WriterFailedError("the first rank says where the run diverged")
        plan, start = self.plan, self.progress.rows
        places = range(start, start + plan.rows * plan.accumulation, plan.rows)
        batches = [self.packer.batch(place, plan.rows) for place in places]
        step = self.progress.step + 1
        kept = self.out / f"diverged-{step:07d}.safetensors"
        keep_batch(kept, batches)
        said = explain(model, batches, self.dtype, self.packer, start, carried)
        return DivergedError(
            f"step {step}: the loss is {loss}, the gradient's norm {norm}: {said}. Its rows are in"
            f" {kept}, weights from before in"
            f" {latest_checkpoint(self.checkpoints) or 'no checkpoint yet'}. A lower"
            " train.learning_rate, a longer train.warmup_steps or a lower train.clip may help"
        )

    def _whole_model(self) -> Griffin:
        """Return the model, with all its weights on the writer; all ranks must call this."""
        if self.ranks.mesh is None:
            return self.model
        with torch.device("meta"):
            model = Griffin(self.recipe.model)
        for name, weight in whole_weights(self.model, self.ranks):
            if self.ranks.is_writer:
                place, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(place), leaf, torch.nn.Parameter(weight))
        return model
