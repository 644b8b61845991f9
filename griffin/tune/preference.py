"""Learning from pairs of answers, of which one is preferred: DPO and its kin."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from griffin.adapters import Adapter, parameter_name
from griffin.model import Griffin
from griffin.train.embedding import add_in_place
from griffin.train.recipe import Recipe, TrainRecipe
from griffin.train.run import Validation
from griffin.train.scale.ranks import Ranks
from griffin.train.watching import sample
from griffin.tune.export import TunedRun
from griffin.tune.learner import lora_config, make_learner
from griffin.tune.losses import dpo_loss, margins
from griffin.tune.pairs import Pair, Pairs, log_probabilities
from griffin.tune.reference import find_reference, reference_adapter


class PreferenceTrainer(TunedRun):
    """Train a model, or an adapter in it, to prefer the chosen answers to the rejected ones.

    A step reads `train.rows` pairs at a time, `train.accumulation` times; every pair of the step
    weighs the same. What the reference thinks of them is known before the first step.
    One process trains.
    """

    @classmethod
    def check(cls, recipe: Recipe, ranks: Ranks) -> None:
        """Also for what learning from pairs cannot do with it."""
        _check(recipe, ranks.world)
        super().check(recipe, ranks)

    def _read_data(self) -> None:
        recipe, tune = self.recipe, self.recipe.tune
        assert tune is not None
        self.tune, train = tune, recipe.train
        sources = self.data.sources
        self.pairs = Pairs([each.train for each in sources], train.seed, train.length)
        self.held_out = Pairs([each.held_out for each in sources], train.seed, train.length)
        for pairs, what in ((self.pairs, "to train on"), (self.held_out, "held out")):
            if not len(pairs):
                raise ValueError(
                    f"there is no pair {what} of which both answers, with their prompt, have at"
                    f" most train.length = {train.length} tokens: raise it, or add pairs"
                )
        if left := self.pairs.left_out + self.held_out.left_out:
            self.reporter.say(
                f"{left} pairs have more than {train.length} tokens (train.length) in an answer"
                " with its prompt: left out"
            )
        self.folder.rows_in = lambda epochs: int(epochs * len(self.pairs))
        self.plan: TrainRecipe = train.in_steps(int(train.epochs * len(self.pairs)))
        self._validation = _some(self.held_out, train.eval_tokens)

    def _build(self, *, begun: bool) -> None:
        recipe = self.recipe
        self.reference = find_reference(
            recipe,
            self.out / "data",
            self.pairs,
            self.held_out,
            self.device,
            self.dtype,
            self.reporter,
            self._check_stop,
        )
        self.model = make_learner(recipe, self.device, drawn=not begun)
        if (adapter := reference_adapter(recipe)) is not None:
            _begin_as(self.model, adapter, recipe)
        add_in_place(self.model)
        self.learner = self.model

    def step(self) -> dict[str, Any]:
        """Do one optimiser step; return its log entry.

        loss: the mean over the step's pairs. margin: by how much the implicit reward of chosen
        answers, beta times the log-ratio to the reference, is above that of the rejected ones;
        chosen_reward and rejected_reward: each by itself; accuracy: the share of pairs with a
        margin above 0, ties half. What dropout leaves out follows from seed and step.
        """
        train, first = self.recipe.train, self.progress.rows
        count = train.rows * train.accumulation
        pairs = [self.pairs.at(first + number) for number in range(count)]
        self.model.train()
        torch.manual_seed(hash((train.seed, self.progress.step)))
        self.optimizer.zero_grad()
        seen = list[Tensor]()
        for at in range(0, count, train.rows):
            if at:
                self._check_stop()
            losses, told = self._compared(pairs[at : at + train.rows], self.reference.train)
            (losses.sum() / count).backward()
            seen.append(told)
        found = _means(seen)
        entry = self._update(found["loss"], count, sum(pair.tokens for pair in pairs))
        return entry | found | {"epoch": self.progress.rows / len(self.pairs)}

    @torch.no_grad()
    def validate(self) -> Validation:
        """Return loss, margin and accuracy on the first held-out pairs, without dropout.

        Raises `Interrupted` between those that are read together if a stop is asked for.
        """
        self.model.eval()
        rows, pairs, seen = self.recipe.train.rows, self._validation, list[Tensor]()
        for at in range(0, len(pairs), rows):
            self._check_stop()
            seen.append(self._compared(pairs[at : at + rows], self.reference.held_out)[1])
        found = {f"held_out_{name}": value for name, value in _means(seen).items()}
        return Validation(found["held_out_loss"], found)

    def _compared(self, pairs: Sequence[Pair], known: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each pair, (P,), and for the log (P, 5): loss, margin, accuracy and
        both rewards. known: what the reference thinks of all pairs."""
        tune = self.tune
        policy = log_probabilities(self.model, pairs, self.dtype, in_place=True)
        reference = known[[pair.number for pair in pairs]].to(policy)
        lengths = torch.tensor([pair.lengths for pair in pairs], device=policy.device)
        losses = dpo_loss(policy, reference, lengths, tune.beta, tune.loss)
        margin = margins(policy, reference, tune.beta)
        right = (margin.sign() + 1) / 2
        rewards = tune.beta * (policy.detach() - reference)
        told = [losses.detach(), margin, right, *rewards.unbind(-1)]
        return losses, torch.stack(told, dim=-1).double().cpu()

    def _samples(self) -> list[dict[str, str]]:
        train = self.recipe.train
        tokens = self.data.tokenizer, train.prompts, train.sample_tokens
        self.model.eval()
        return sample(self.model, *tokens, self.dtype, check=self._check_stop)


_TOLD = ("loss", "margin", "accuracy", "chosen_reward", "rejected_reward")


def _means(seen: Sequence[Tensor]) -> dict[str, float]:
    return dict(zip(_TOLD, torch.cat(list(seen)).mean(0).tolist(), strict=True))


def _some(pairs: Pairs, tokens: int) -> list[Pair]:
    """Return the first pairs that have so many tokens together, one at least."""
    found = list[Pair]()
    for number in range(len(pairs)):
        pair = pairs.listed(number)
        tokens -= pair.tokens
        if found and tokens < 0:
            break
        found.append(pair)
    return found


def _begin_as(model: Griffin, adapter: Adapter, recipe: Recipe) -> None:
    """Give the adapter that is trained the values of another."""
    assert recipe.tune is not None
    wanted = lora_config(recipe.tune)
    theirs = dataclasses.replace(adapter.config, dropout=wanted.dropout)
    names = ("rank", "alpha", "rslora", "targets", "whole")
    given, asked = (
        {name: _plain(getattr(each, name)) for name in names} for each in (theirs, wanted)
    )
    if differing := [name for name in names if given[name] != asked[name]]:
        said = ", ".join(f"tune.{name} = {given[name]!r}" for name in differing)
        raise ValueError(
            f"training begins with the adapter that tune.reference names, {adapter.name}, so it"
            f" must be of its shape: set {said}"
        )
    with torch.no_grad():
        for key, tensor in adapter.tensors.items():
            model.get_parameter(parameter_name(key)).copy_(tensor)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, tuple) else value


def _check(recipe: Recipe, ranks: int) -> None:
    """Raise ValueError for what learning from pairs cannot do with a recipe."""
    tune, train = recipe.tune, recipe.train
    assert tune is not None
    if ranks > 1:
        raise ValueError(
            f"tune.method = 'dpo' is for one process, not {ranks}: pairs are not dealt to several"
        )
    if train.tokens or train.stage:
        raise ValueError("tune.method = 'dpo' takes a budget in train.steps or train.epochs")
    alike = (1.0, 0.0, 0)
    mixed = [s.name for s in recipe.data.sources if (s.weight, s.epochs, s.seed) != alike]
    if mixed:
        raise ValueError(
            f"tune.method = 'dpo' reads all pairs alike: weight, epochs and seed of"
            f" {', '.join(mixed)} have no meaning here; take them out"
        )
    if train.carry:
        raise ValueError("tune.method = 'dpo' reads whole answers: train.carry has no meaning here")
    if tune.trains == "full" and tune.reference:
        raise ValueError(
            "tune.reference is an adapter, beside which no other weights are trained; merge it into"
            " the model (griffin merge) and tune that, or train an adapter"
        )
