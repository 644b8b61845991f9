"""A small model: what it answers, how probable that is, how it is taught."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.alignment.tasks import ALPHABET, BOS, END, Item, Task, decode, encode
from griffin.model import Griffin, GriffinConfig
from griffin.model.config import PRESETS
from griffin.model.init import init_weights

SHAPES = {
    "small": GriffinConfig(
        vocab_size=len(ALPHABET),
        width=32,
        mlp_width=96,
        lru_width=32,
        num_heads=2,
        num_gate_blocks=2,
        block_types=("recurrent", "attention"),
        attention_window_size=32,
    ),
    "nano": dataclasses.replace(PRESETS["nano"], vocab_size=len(ALPHABET)),
}


def new_model(seed: int, shape: str = "small") -> Griffin:
    """Return a model of random weights, in float32."""
    model = Griffin(SHAPES[shape])
    init_weights(model, SHAPES[shape], torch.Generator().manual_seed(seed))
    return model


def prompt_ids(items: Sequence[Item]) -> Tensor:
    """Return prompts as ids, (B, P); all are equally long."""
    return torch.tensor([[BOS, *encode(item.prompt)] for item in items])


@dataclass(frozen=True)
class Answers:
    """Answers to prompts, as ids.

    rows: (B, P + A) int64, prompts and answers, END behind an answer's end. mask: (B, A) bool, what
    is an answer's: up to and with its first END.
    """

    rows: Tensor
    mask: Tensor

    @property
    def ids(self) -> Tensor:
        return self.rows[:, -self.mask.shape[1] :]

    @classmethod
    def of(cls, prompts: Tensor, ids: Tensor) -> Answers:
        """Put (B, A) ids behind (B, P) prompts."""
        ended = (ids == END).cumsum(1)
        mask = (ended == 0) | ((ended == 1) & (ids == END))
        return cls(torch.cat([prompts, torch.where(mask, ids, END)], 1), mask)

    @classmethod
    def right(cls, items: Sequence[Item]) -> Answers:
        """Return the answers that are right."""
        most = max(len(item.answer) for item in items) + 1
        ids = [encode(item.answer) + [END] * (most - len(item.answer)) for item in items]
        return cls.of(prompt_ids(items), torch.tensor(ids))

    def texts(self) -> list[str]:
        return [decode(ids) for ids in self.ids.tolist()]

    def beside(self, others: Answers) -> Answers:
        """Return these and others as one; their prompts are equally long."""
        most = max(self.mask.shape[1], others.mask.shape[1])
        rows, masks = list[Tensor](), list[Tensor]()
        for each in (self, others):
            more = (0, most - each.mask.shape[1])
            rows.append(functional.pad(each.rows, more, value=END))
            masks.append(functional.pad(each.mask, more))
        return Answers(torch.cat(rows), torch.cat(masks))

    def select(self, rows: Tensor) -> Answers:
        return Answers(self.rows[rows], self.mask[rows])


@torch.no_grad()
def draw(model: Griffin, prompts: Tensor, longest: int, random: torch.Generator) -> Answers:
    """Draw one answer to each prompt, (B, P) ids, at temperature 1 from all of the vocabulary."""
    logits, state = model(prompts)
    chosen, ended = list[Tensor](), torch.zeros(len(prompts), dtype=torch.bool)
    while True:
        ids = torch.multinomial(logits[:, -1].softmax(-1), 1, generator=random)
        chosen.append(ids)
        ended |= ids[:, 0] == END
        if len(chosen) == longest or bool(ended.all()):
            return Answers.of(prompts, torch.cat(chosen, 1))
        logits, state = model(ids, state, donate=True)


def log_distributions(model: Griffin, answers: Answers) -> Tensor:
    """Return the log-probabilities of all ids at every place of the answers, (B, A, V)."""
    hidden, _ = model.trunk(answers.rows[:, :-1])
    return model.unembed(hidden[:, -answers.mask.shape[1] :]).log_softmax(-1)


def token_logprobs(model: Griffin, answers: Answers) -> Tensor:
    """Return the log-probability of each token of the answers, (B, A), 0 behind their ends."""
    found = log_distributions(model, answers)
    return found.gather(2, answers.ids[..., None])[..., 0] * answers.mask


@dataclass(frozen=True)
class Standing:
    """How a model does on held-out prompts.

    reward, error: the mean over prompts, and its standard error. divergence, divergence_error: of
    the policy from the base, in nats an answer: the divergences of their distributions of the next
    token, summed along answers that the policy drew. length: mean tokens of an answer.
    """

    reward: float
    error: float
    divergence: float
    divergence_error: float
    length: float


@torch.no_grad()
def stand(
    model: Griffin,
    base: Griffin,
    task: Task,
    items: Sequence[Item],
    each: int,
    random: torch.Generator,
) -> Standing:
    """Measure a model with `each` answers to each item, drawn as in training."""
    several = [item for item in items for _ in range(each)]
    answers = draw(model, prompt_ids(several), task.longest, random)
    rewards = torch.tensor(task.score(several, answers.texts())).view(-1, each).mean(1)
    own, theirs = log_distributions(model, answers), log_distributions(base, answers)
    apart = ((own.exp() * (own - theirs)).sum(-1) * answers.mask).sum(1).view(-1, each).mean(1)
    return Standing(
        reward=float(rewards.mean()),
        error=float(rewards.std()) / len(items) ** 0.5,
        divergence=float(apart.mean()),
        divergence_error=float(apart.std()) / len(items) ** 0.5,
        length=float(answers.mask.sum()) / len(several),
    )


def teach(model: Griffin, task: Task, steps: int, rows: int = 128, rate: float = 3e-3) -> float:
    """Teach a model right answers for some steps; return the last step's nats a token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    loss = torch.zeros(())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * max(0.05, 1 - step / steps)
        answers = Answers.right(task.items(f"taught {step}", rows))
        loss = -token_logprobs(model, answers).sum() / answers.mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return float(loss.detach())
