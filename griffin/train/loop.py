"""Training on rows of text: every token that is counted is predicted from those before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from griffin.model import Griffin, State
from griffin.train.carry import new_states, state_tensors, whole_states
from griffin.train.checkpoint import latest_checkpoint
from griffin.train.data.mixture import Mixture
from griffin.train.diverged import DivergedError, explain, keep_batch
from griffin.train.evaluate import bits_in_rows, validation_documents
from griffin.train.objective import Objective
from griffin.train.recipe import Recipe
from griffin.train.run import TrainingRun, Validation
from griffin.train.scale.ranks import Ranks, WriterFailedError
from griffin.train.scale.sharding import release, shard, whole_weights
from griffin.train.start import check_whole, fill_model
from griffin.train.watching import sample


class Trainer(TrainingRun):
    """Train one model by one recipe in one folder, on rows of its documents."""

    model: Griffin
    objective: Objective

    @classmethod
    def check(cls, recipe: Recipe, ranks: Ranks) -> None:
        """Also of rows that they cannot share equally, and of a quantized checkpoint to start
        from."""
        super().check(recipe, ranks)
        if recipe.base and recipe.tune is None:
            check_whole(recipe.open_base())
        together = recipe.train.sequence_ranks
        dataclasses.replace(ranks, together=together).share(recipe.train.rows)

    def _read_data(self) -> None:
        self._share = self.ranks.share(self.recipe.train.rows)
        stores = {source.name: source.train for source in self.data.sources}
        self.packer, self.plan = Mixture.of(self.recipe, stores)
        self.folder.rows_in = self.packer.rows_in
        for name, packer in ((source.name, source.packer) for source in self.packer.sources):
            if packer.left_out:
                what = "rows" if packer.packing == "cut" else "pieces of documents"
                self.reporter.say(f"{name}: {packer.left_out} {what} have no target: left out")
        self._validation = validation_documents(
            {source.name: source.held_out for source in self.data.sources},
            self.recipe.train.eval_tokens,
        )
        self.held_out = dict[str, float]()  # bits per byte by source, at the last `validate`

    def _build(self, *, begun: bool) -> None:
        self._make_model(begun=begun)
        # With `carry`, what this rank's rows go on with, a state a source.
        self.carried = list[State]()
        if self.plan.carry:
            rows, sources = self._share.stop - self._share.start, len(self.packer.sources)
            dtype = self.model.dtype if self.dtype == torch.float32 else self.dtype
            self.carried = new_states(self.recipe.model, sources, rows, dtype, self.device)

    def _make_model(self, *, begun: bool) -> None:
        """Set `model`, `objective` and `learner`."""
        recipe = self.recipe
        with torch.device("meta"):
            self.model = Griffin(recipe.model).to(getattr(torch, recipe.train.weights))
        self.model.keep_every = recipe.train.keep_every
        self.objective = self._objective()
        shard(self.objective, self.ranks)
        fill_model(self.model, recipe, self.device, drawn=not begun)
        self.learner = self.model

    def _objective(self) -> Objective:
        if self.ranks.grid is None:
            return Objective(self.model, self.dtype)
        from griffin.train.scale.sequence import SplitObjective

        group = self.ranks.grid.get_group(1)
        return SplitObjective(self.model, group, self.dtype, carry=self.plan.carry)

    def _beside(self) -> Mapping[str, Tensor]:
        return state_tensors(self.carried, self.ranks)

    def step(self) -> dict[str, Any]:
        """Do one optimiser step, return its log entry; the loss is the mean over its targets.

        Rows without any target, which `carry` reads for their state, change no weight. Raises
        `Interrupted` between micro-batches if a stop is asked for: no weight has changed then.
        """
        plan = self.plan
        places = range(0, plan.rows * plan.accumulation, plan.rows)
        share = self._share.stop - self._share.start
        first = self.progress.rows + self._share.start
        batches = [self.packer.batch(first + place, share) for place in places]
        [count] = self.ranks.sum(sum(int(batch.mask.sum()) for batch in batches))
        count /= self.ranks.together  # who read together have counted the same targets
        total, carried = 0.0, list(self.carried)
        self.optimizer.zero_grad()
        for number, batch in enumerate(batches):
            if number:
                self._check_stop()
            rows = batch.rows(slice(None), self.device)
            inputs = (rows.tokens, rows.targets, rows.segment_pos, rows.mask)
            with torch.set_grad_enabled(count > 0):
                if carried:
                    source, _ = self.packer.place(first + places[number])
                    nats, after = self.objective(*inputs, carried[source])
                    carried[source] = after.clone()  # what it is a part of can go
                else:
                    nats, _ = self.objective(*inputs)
            if count:  # Every target of the step weighs the same, whatever its micro-batch.
                (nats / count).backward()
            total += float(nats.detach())
        [total] = self.ranks.sum(total)
        if not count:
            release(self.objective)
        loss = total / count if count else None
        entry = self._update(loss, plan.rows * plan.accumulation, plan.tokens_per_step)
        self.carried = carried
        return entry | self.packer.progress(self.progress.rows)

    def validate(self) -> Validation:
        """Return bits per byte on the first held-out documents, read in rows as in training.

        Those of each source are in `held_out` then. Raises `Interrupted` between batches if a stop
        is asked for.
        """
        length, bits = self.recipe.train.length, dict[str, float]()
        rows = self._share.stop - self._share.start  # as many as a step has memory for
        try:
            for name, (documents, _) in self._validation.items():
                how: Any = {"ranks": self.ranks, "check": self._check_stop}
                bits[name] = bits_in_rows(self.objective, documents, length, rows, **how)
        finally:
            release(self.objective)
        sizes = {name: size for name, (_, size) in self._validation.items()}
        self.held_out = {name: bits[name] / size for name, size in sizes.items()}
        whole = sum(bits.values()) / sum(sizes.values())
        entries: dict[str, Any] = {"held_out_bits_per_byte": whole}
        told = self.packer.progress(self.progress.rows).get("sources", {})
        for name, of_source in told.items():
            of_source["held_out_bits_per_byte"] = self.held_out.get(name)
        return Validation(whole, entries | ({"sources": told} if told else {}))

    def _samples(self) -> list[dict[str, str]]:
        model, train = self._whole_model(), self.recipe.train
        if not self.ranks.is_writer:
            while not self._check_stop():  # the writer looks once a token
                pass
            return []
        tokens = self.data.tokenizer, train.prompts, train.sample_tokens
        found = sample(model, *tokens, self.dtype, check=self._check_stop)
        self._check_stop(done=True)
        return found

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
        try:
            keep_batch(kept, batches)
            where = f"Its rows are in {kept}"
        except OSError as error:
            where = f"Its rows are not kept ({error})"
        said = explain(model, batches, self.dtype, self.packer, start, carried)
        return DivergedError(
            f"step {step}: the loss is {loss}, the gradient's norm {norm}: {said}. {where}, weights"
            f" from before in"
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
