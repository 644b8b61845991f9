"""The section [tune] of a recipe: how a model that exists is made one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from griffin.train.recipe.section import check_types

Method = Literal["full", "lora", "state", "dpo", "jbond", "grpo", "rloo"]
# What a row of data must say: something to be learned as it stands, two answers, a prompt alone.
Reads = Literal["answers", "pairs", "prompts"]
# What learns from rewards for its own answers, and from what else than the next token.
ONLINE = ("jbond", "grpo", "rloo")


@dataclass(frozen=True, kw_only=True)
class TuneRecipe:
    """Say what is learned, and which parameters learn it.

    method           "full", "lora" and "state" learn answers as they are written, with all weights,
                     a low-rank adapter, or the state before the first token; "dpo" learns from
                     pairs of answers, "jbond", "grpo" and "rloo" from a reward for the model's own.
    parameters       what the last four change: "lora" or "full".
    base             type of the weights that are not changed: as stored (""), "float32",
                     "bfloat16", "int8" or "int4".

    Of an adapter (LoRA, arXiv:2106.09685):
    rank, alpha, rslora, dropout, targets, whole
                     as in `griffin.adapters.LoraConfig`; no targets: every linear layer of the
                     blocks.

    Of a state:
    keys             learnt keys and values of each attention layer, and the position that the first
                     token then has.

    Of pairs (DPO, arXiv:2305.18290):
    loss             "sigmoid"; "ipo" (arXiv:2310.12036), of the mean over an answer's tokens as TRL
                     has it; "sigmoid_norm": sigmoid of length-normalised log-probabilities.
    beta             how strongly the reference holds; a larger one changes less.
    reference        an adapter's folder that the answers are compared with; "" for the base.

    Of rewards:
    reward           "FILE.py:FUNCTION", a function of prompt and answer, or the name of one that
                     the package has.
    reward_seconds, reward_bytes
                     what one call may take.
    reward_failures  the share of a step's calls that may fail before the run stops.
    prompts          read in a step; answers: samples of each ("jbond" takes one, and two of its
                     anchor); answer_tokens: the longest answer.
    kl               strength of the pull to the model as it was ("grpo", "rloo").
    epsilon          how far from 1 the ratio of probabilities counts ("grpo").
    mix, eta, gamma  of J-BOND (arXiv:2407.14622, algorithm 2): its beta, the part that is policy
                     gradient; the anchor's step towards the policy; strength of the pull to it.
    """

    method: Method
    parameters: Literal["lora", "full"] = "lora"
    base: Literal["", "float32", "bfloat16", "int8", "int4"] = ""
    rank: int = 16
    alpha: float = 32.0
    rslora: bool = False
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    keys: int = 16
    loss: Literal["sigmoid", "ipo", "sigmoid_norm"] = "sigmoid"
    beta: float = 0.1
    reference: str = ""
    reward: str = ""
    reward_seconds: float = 10.0
    reward_bytes: int = 1 << 30
    reward_failures: float = 0.1
    prompts: int = 16
    answers: int = 8
    answer_tokens: int = 64
    kl: float = 0.0
    epsilon: float = 0.2
    mix: float = 0.5
    eta: float = 0.02
    gamma: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "tune")
        for name in ("rank", "keys", "reward_bytes", "prompts", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"tune.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("alpha", "beta", "reward_seconds", "epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"tune.{name} must be positive, not {getattr(self, name)}")
        for name in ("kl", "gamma"):
            if getattr(self, name) < 0:
                raise ValueError(f"tune.{name} must not be negative, not {getattr(self, name)}")
        for name in ("reward_failures", "mix", "eta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"tune.{name} must lie between 0 and 1, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"tune.dropout must lie in [0, 1), not {self.dropout}")
        if self.answers < 2 and self.method in ("grpo", "rloo"):
            raise ValueError(
                f"tune.answers must be at least 2 for {self.method!r}, which compares the answers"
                f" to a prompt; not {self.answers}"
            )
        if self.trains == "full" and self.base:
            raise ValueError(
                f"tune.base = {self.base!r} is for weights that stay as they are; all weights are"
                " trained here: take it out, or train an adapter (tune.method or tune.parameters)"
            )
        if self.method in ONLINE and not self.reward:
            raise ValueError(
                f"tune.method = {self.method!r} needs tune.reward, such as 'reward.py:reward'"
            )

    @property
    def reads(self) -> Reads:
        """What rows of data must say."""
        return (
            "prompts" if self.method in ONLINE else "pairs" if self.method == "dpo" else "answers"
        )

    @property
    def trains(self) -> Literal["full", "lora", "state"]:
        """Which parameters are trained."""
        if self.method in ("full", "lora", "state"):
            return self.method
        return self.parameters
