"""Learning from a reward for the model's own answers: J-BOND, GRPO and REINFORCE, one loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from griffin.model import Griffin
from griffin.train.checkpoint import newest_step
from griffin.train.diverged import DivergedError
from griffin.train.loss import token_nats
from griffin.train.recipe import Recipe, TrainRecipe
from griffin.train.run import Validation
from griffin.train.scale.ranks import Ranks
from griffin.train.watching import sample
from griffin.tune.export import TunedRun
from griffin.tune.heard import Heard, measures, padded, values_of
from griffin.tune.learner import make_learner
from griffin.tune.lessons import Lesson, method_of
from griffin.tune.prompts import Prompts, Question, check_column
from griffin.tune.reward import (
    Reward,
    Rewards,
    TooManyFailures,
    check_failures,
    failures,
    note_reward,
)
from griffin.tune.sample import AnswerRows, Drawing, Drawn, draw, logprobs_of, seed_of
from griffin.tune.twin import Twin

# Nats by which the engine's and the trainer's log-probability of a token may differ: a hundred
# times what rounding was seen to do in float32, five times in bfloat16.
LARGEST_GAP = {torch.float32: 2e-3, torch.bfloat16: 0.5}
_OF_POLICY, _OF_ANCHOR, _HELD_OUT = range(3)  # whose answers a seed is for


class Scorer(Protocol):
    """What gives rewards, as `griffin.tune.reward.Rewards` does."""

    def score(self, pairs: Iterable[tuple[str, str, Mapping[str, Any]]], /) -> Sequence[Reward]: ...
    def close(self) -> None: ...


class OnlineTrainer(TunedRun):
    """Train a model, or an adapter in it, on a reward for what it answers.

    A step draws answers to `tune.prompts` prompts with the weights as they are, has them rewarded,
    and follows the gradient that the method makes of that; `train.rows` answers are read together.
    rewards: what is asked for rewards; the recipe's function if omitted. Others as for TrainingRun.
    One process trains: a model that is split over several has no engine.
    """

    def __init__(
        self, recipe: Recipe, out: Path, *given: Any, rewards: Scorer | None = None, **named: Any
    ) -> None:
        self._rewards = rewards
        super().__init__(recipe, out, *given, **named)

    def close(self) -> None:
        if self._rewards is not None:
            self._rewards.close()
        super().close()

    @classmethod
    def check(cls, recipe: Recipe, ranks: Ranks) -> None:
        """Also for what learning from rewards cannot do with it."""
        _check(recipe, ranks.world)
        super().check(recipe, ranks)

    def _read_data(self) -> None:
        recipe, tune = self.recipe, self.recipe.tune
        assert tune is not None
        self.tune, self.method = tune, method_of(tune)
        tokenizer, train = self.data.tokenizer, recipe.train
        most = train.length - tune.answer_tokens
        sources, seed = self.data.sources, train.seed
        self.prompts = Prompts([(each.train, each.train_rows) for each in sources], seed, most)
        held_out = [(each.held_out, each.held_out_rows) for each in sources]
        self.held_out = Prompts(held_out, seed, most)
        if left := self.prompts.left_out + self.held_out.left_out:
            self.reporter.say(
                f"{left} prompts are longer than {most} tokens (train.length less"
                " tune.answer_tokens): left out"
            )

        def rows_in(epochs: float) -> int:  # a step's prompts are its own number
            steps = int(epochs * len(self.prompts) / tune.prompts)
            return steps * train.rows

        self.folder.rows_in = rows_in
        self.plan: TrainRecipe = train.in_steps(rows_in(train.epochs))
        ends = {tokenizer.eos_id, tokenizer.end_of_turn_id} - {None}
        self.how = Drawing(
            max_tokens=tune.answer_tokens,
            end_ids=frozenset(int(id) for id in ends if id is not None),
            vocab_size=tokenizer.vocab_size,
        )
        if self._rewards is None:
            check_column(tune.reward, sources, tune.reward_failures)
            limits = tune.reward_seconds, tune.reward_bytes, torch.get_num_threads()
            spec = tune.reward  # a file, as all that a recipe names, or a name
            spec = str(recipe.folder / Path(spec).expanduser()) if ":" in spec else spec
            self._rewards = Rewards(spec, *limits, check=self.stop.check)

    def _build(self, *, begun: bool) -> None:
        # With the values that a run begins with, also where it goes on: `start` keeps them.
        self.model = make_learner(self.recipe, self.device).eval()
        self.learner = self.model
        if isinstance(self._rewards, Rewards):
            known = self.out / "reward.json"
            step = newest_step(self.checkpoints) if begun else 0
            if said := note_reward(known, self.tune.reward, self._rewards.digest, step):
                self.reporter.say(said)
        names, alone = self.model.adapters.names, self.model.adapters.alone
        # What an adapter that stands beside others was added to is still there, unchanged.
        self.start = None if names and not alone else Twin(self.model)
        self.anchor = Twin(self.model) if self.method.anchors else None

    def _beside(self) -> Mapping[str, Tensor]:
        return {} if self.anchor is None else self.anchor.tensors("anchor")

    def step(self) -> dict[str, Any]:
        """Draw, reward, learn: one optimiser step; return its log entry.

        Raises `Interrupted` where a stop is asked for, TooManyFailures for a reward function that
        fails on more than its share (the steps before are in a checkpoint), DivergedError where
        engine and trainer disagree: nothing has changed then.
        """
        first, count = self.progress.rows, self.tune.prompts
        heard, failed = self._hear(first, [self.prompts.at(first + n) for n in range(count)])
        lesson = self.method.lesson(heard)
        loss, gap = self._learn(lesson)
        entry = self._update(loss, count, heard.tokens)
        if self.anchor is not None:
            self.anchor.follow(self.tune.eta)
        entry["epoch"] = self.progress.rows / len(self.prompts)
        told = {"ties": lesson.ties, "failures": failed, "largest_gap": gap}
        return entry | heard.measured() | told

    def validate(self) -> Validation:
        """Return the mean reward of answers to held-out prompts, drawn by the same seeds each time.

        As many prompts are answered as `train.eval_tokens` has room for, each once. Raises
        `Interrupted` between tokens, or while rewards are waited for, if a stop is asked for.
        """
        room = self.recipe.train.eval_tokens
        questions = list[Question]()
        for number in range(len(self.held_out)):
            question = self.held_out.listed(number)
            room -= len(question.ids) + self.tune.answer_tokens
            if questions and room < 0:
                break
            questions.append(question)
        answers = self._draw(self.model, 0, _HELD_OUT, questions, 1)
        found = measures(answers, values_of(self._reward(questions, answers)))
        reward = found["reward"]
        told = {f"held_out_{key}": value for key, value in found.items()}
        return Validation(math.inf if reward is None else -reward, told)

    def _draw(
        self,
        model: Griffin,
        first: int,
        who: int,
        questions: Sequence[Question],
        n: int,
    ) -> list[list[Drawn]]:
        """Return n answers of a model to each prompt; first: the number of the first one.

        Raises `Interrupted` between tokens if a stop is asked for.
        """
        seeds = [seed_of(self.recipe.train.seed, who, first + at) for at in range(len(questions))]
        prompts = [question.ids for question in questions]
        return draw(model, prompts, self.how, seeds, n, check=self._check_stop)

    def _reward(
        self, questions: Sequence[Question], answers: Sequence[Sequence[Drawn]]
    ) -> list[list[Reward]]:
        """Return the rewards of the answers to each prompt."""
        assert self._rewards is not None
        decode = self.data.tokenizer.decode
        asked = [
            (question.text, decode(answer.ids), question.row)
            for question, some in zip(questions, answers, strict=True)
            for answer in some
        ]
        scored = self._rewards.score(asked)
        try:
            check_failures(scored, self.tune.reward_failures)
        except TooManyFailures:
            if self.progress.step:
                self.save()  # the steps before are as good as ever
            raise
        found = iter(scored)
        return [[next(found) for _ in some] for some in answers]

    def _hear(self, first: int, questions: Sequence[Question]) -> tuple[Heard, dict[str, int]]:
        """Return answers to a step's prompts and what they are worth, and how rewards failed."""
        n, m, rows = self.method.answers, self.method.anchors, self.recipe.train.rows
        answers = self._draw(self.model, first, _OF_POLICY, questions, n)
        both, anchors, anchor = answers, list[list[Drawn]](), list[tuple[float, ...]]()
        if self.anchor is not None:
            anchors = self._draw(self.anchor.model, first, _OF_ANCHOR, questions, m)
            both = [[*own, *theirs] for own, theirs in zip(answers, anchors, strict=True)]
        rewards = self._reward(questions, both)
        own = [answer for some in answers for answer in some]
        if self.anchor is not None:
            anchor = logprobs_of(self.anchor.model, own, rows)
        if self.start is not None:
            start = logprobs_of(self.start.model, own, rows)
        else:  # what the adapter was added to
            start = logprobs_of(self.model, own, rows, adapter=-1)
        values = values_of(rewards)
        heard = Heard(answers, values[:, :n], start, anchors, values[:, n:], anchor)
        return heard, failures([reward for some in rewards for reward in some])

    def _learn(self, lesson: Lesson) -> tuple[float, float]:
        """Leave a step's gradient in the parameters; return its loss, and the largest difference
        in nats between what the engine and this forward say of a token."""
        units, total, apart_most = lesson.units, 0.0, list[Tensor]()
        size = len(units[0])
        at_once = max(1, self.recipe.train.rows // size)
        # Answers of about one length are read together: there is less padding.
        order = sorted(range(len(units)), key=lambda number: max(map(_length, units[number])))
        self.optimizer.zero_grad()
        for place in range(0, len(order), at_once):
            self._check_stop()
            which = order[place : place + at_once]
            rows = AnswerRows.of([a for number in which for a in units[number]], self.device)
            policy = self._logprobs(rows)
            shape = len(which), size, -1
            mask = rows.mask.view(shape)
            each = lesson.loss(policy.view(shape), mask, torch.tensor(which))
            loss = each.sum() / len(units)
            loss.backward()
            total += float(loss.detach())
            drawn = padded(
                [units[number][-1].logprobs for number in which], policy.view(shape)[:, -1]
            )
            apart = (policy.detach().view(shape)[:, -1] - drawn).abs()
            apart_most.append(apart.max())
        gap = float(torch.stack(apart_most).max())  # NaN if any is
        # A packed model computes in training what it does when it answers.
        narrow = torch.bfloat16 in (self.dtype, self.model.dtype) and self._is_plain
        most = LARGEST_GAP[torch.bfloat16 if narrow else torch.float32]
        if not gap <= most:
            raise DivergedError(
                f"step {self.progress.step + 1}: the engine that drew an answer and the trainer"
                f" differ by {gap:.2g} nats about a token; rounding to"
                f" {'bfloat16' if narrow else 'float32'} explains {most:g} at most. What would be"
                " learned is not what was drawn: please report this"
            )
        return total, gap

    def _logprobs(self, rows: AnswerRows) -> Tensor:
        """Return the policy's log-probability of each token, (R, A), with gradients."""
        model, dtype = self.model, self.dtype
        narrow = dtype.itemsize < 4 and self._is_plain
        with torch.autocast(self.device.type, dtype, enabled=narrow):
            hidden = rows.hidden(model)
        cap, targets = model.config.logits_soft_cap, rows.targets[rows.mask]
        return rows.spread(-token_nats(hidden, model.head, targets, None, cap, dtype))

    @property
    def _is_plain(self) -> bool:
        """Whether the model's matrices are as a checkpoint holds them, and not packed."""
        return isinstance(self.model.head, Tensor)

    def _samples(self) -> list[dict[str, str]]:
        train = self.recipe.train
        words = self.data.tokenizer, train.prompts, train.sample_tokens
        return sample(self.model, *words, check=self._check_stop)


def _length(answer: Drawn) -> int:
    return len(answer.prompt) + len(answer.ids)


def _check(recipe: Recipe, ranks: int) -> None:
    """Raise ValueError for what learning from rewards cannot do with a recipe."""
    tune, train = recipe.tune, recipe.train
    assert tune is not None
    if ranks > 1:
        raise ValueError(
            f"tune.method = {tune.method!r} is for one process, not {ranks}: it draws answers with"
            " the whole model"
        )
    if train.accumulation > 1:
        raise ValueError(
            f"train.accumulation is {train.accumulation}; a step of {tune.method!r} is tune.prompts"
            f" = {tune.prompts} prompts with all their answers, read train.rows at a time: take it"
            " out, and raise tune.prompts for a larger step"
        )
    if tune.dropout:
        raise ValueError(
            f"tune.dropout must be 0 for {tune.method!r}, not {tune.dropout:g}: what is learned"
            " from is what the same model answered"
        )
    if train.tokens or train.stage:
        raise ValueError(f"tune.method = {tune.method!r} takes a budget in train.steps or epochs")
    if any((source.weight, source.epochs) != (1, 0) for source in recipe.data.sources):
        raise ValueError(
            f"tune.method = {tune.method!r} answers the prompts of all sources once an epoch; take"
            " weight and epochs out of [[data.source]]"
        )
    if train.length <= tune.answer_tokens:
        raise ValueError(
            f"train.length is {train.length}, of a prompt and its answer together; it must be more"
            f" than tune.answer_tokens = {tune.answer_tokens}"
        )
