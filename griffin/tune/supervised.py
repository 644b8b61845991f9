"""Tuning on answers as they are written: all weights, an adapter, or the state before them."""

from __future__ import annotations

from typing import Any

import torch

from griffin.model import Griffin
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.run import TrainingRun, Validation
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharding import shard
from griffin.train.watching import sample
from griffin.tune.export import TunedRun
from griffin.tune.learner import begin_state, make_learner
from griffin.tune.state import StateLearner, StateObjective


class Tuner(Trainer, TunedRun):
    """Train a checkpoint on rows of documents, conversations or completions.

    The tokens that are counted are predicted, as in pre-training; what learns it is what the
    recipe's [tune] says. With several ranks a frozen base lies whole on each of them.
    """

    @classmethod
    def check(cls, recipe: Recipe, ranks: Ranks) -> None:
        """Also of what cannot be split or carried."""
        tune, train = recipe.tune, recipe.train
        assert tune is not None
        if tune.trains == "state" and (train.carry or train.sequence_ranks > 1):
            raise ValueError(
                "a state is learnt on whole documents that begin behind it; take train.carry"
                " and train.sequence_ranks out"
            )
        if tune.trains != "full" and train.prompts and ranks.world > 1:
            raise ValueError("train.prompts are continued by one process; take them out")
        super().check(recipe, ranks)

    def _make_model(self, *, begun: bool) -> None:
        tune = self.recipe.tune
        assert tune is not None
        if tune.trains == "full":
            super()._make_model(begun=begun)
            return
        self.model = make_learner(self.recipe, self.device)
        self.learner = self.model
        if tune.trains == "state":
            bos = self.data.tokenizer.bos_id
            self.learner = begin_state(self.recipe, self.model, bos)
            self.objective = StateObjective(self.model, self.learner, bos, self.dtype)
        else:
            self.objective = self._objective()
        shard(self.objective, self.ranks)

    def step(self) -> dict[str, Any]:
        """Do one optimiser step, as `Trainer.step`; what dropout leaves out follows from seed, step
        and rank."""
        train = self.recipe.train
        self.model.train()
        torch.manual_seed(hash((train.seed, self.progress.step, self.ranks.reader)))
        return super().step()

    def validate(self) -> Validation:
        """Measure as `Trainer.validate` does, without dropout."""
        self.model.eval()
        return super().validate()

    def _samples(self) -> list[dict[str, str]]:
        self.model.eval()
        if not isinstance(self.learner, StateLearner):
            return super()._samples()
        train = self.recipe.train
        with torch.no_grad():
            begins = self.learner(1, self.model.dtype)
        words = self.data.tokenizer, train.prompts, train.sample_tokens
        return sample(self.model, *words, self.dtype, begins, self._check_stop)

    def _diverged(self, loss: float, norm: float) -> RuntimeError:
        if self.ranks.mesh is not None and not self._trains_all:
            return TrainingRun._diverged(self, loss, norm)
        return super()._diverged(loss, norm)

    @property
    def _trains_all(self) -> bool:
        return all(each.requires_grad for each in self.model.parameters())

    def _whole_model(self) -> Griffin:
        return super()._whole_model() if self._trains_all else self.model
