"""What the RecurrentGemma paper reports, as tasks of lm-eval 0.4.13, with what may differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from griffin.model import GriffinConfig

_SIZES = {"recurrentgemma-2b": "2b", "recurrentgemma-9b": "9b"}


@dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """A benchmark of the paper and what measures it here.

    name:    as the paper calls it. task: of lm-eval. shots: examples; None as the task says.
    metrics: of the task, with their filters, as lm-eval names results. The first stands beside the
             paper's; the others are given too.
    more:    metrics that lm-eval's code knows and the task's own file does not ask for.
    paper:   what it reports for a size, in percent; with "-it" for the model tuned to talk.
    note:    what is known to differ. refused: why it cannot be measured here, if it cannot.
    code:    it runs what the model writes.
    """

    name: str
    task: str = ""
    shots: int | None = None
    metrics: tuple[str, ...] = ("acc,none",)
    more: tuple[str, ...] = ()
    paper: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    refused: str = ""
    code: bool = False


def size_of(config: GriffinConfig, talks: bool = False) -> str:
    """Return which of the paper's models has this shape, "2b" or "9b-it" say; "" if none has."""
    for name, size in _SIZES.items():
        if config == GriffinConfig.preset(name):
            return f"{size}-it" if talks else size
    return ""


def _both(two: float, nine: float) -> dict[str, float]:
    return {"2b": two, "9b": nine}


def _four(two: float, two_it: float, nine: float, nine_it: float) -> dict[str, float]:
    return {"2b": two, "2b-it": two_it, "9b": nine, "9b-it": nine_it}


_ACC_NORM = ("acc_norm,none", "acc,none")
_EXACT = ("exact_match,remove_whitespace",)
_GSM8K = ("exact_match,strict-match", "exact_match,flexible-extract")

TABLE2 = (
    SuiteRow(
        name="MMLU",
        task="mmlu",
        shots=5,
        paper=_both(38.4, 60.5),
        note="5 examples of dev, the first, and weighted by size; without examples others found"
        " 31.8 for the 2B",
    ),
    SuiteRow(
        name="HellaSwag",
        task="hellaswag",
        shots=0,
        metrics=_ACC_NORM,
        paper=_both(71.0, 80.4),
        note="others found 71.1 for the 2B",
    ),
    SuiteRow(
        name="PIQA",
        task="piqa",
        shots=0,
        metrics=("acc,none", "acc_norm,none"),
        paper=_both(78.5, 81.3),
        note="others found 78.2 for the 2B",
    ),
    SuiteRow(
        name="SIQA",
        task="social_iqa",
        shots=0,
        paper=_both(51.8, 52.3),
        note="the harness does not normalize here; Google scores by length in characters",
    ),
    SuiteRow(name="BoolQ", task="boolq", shots=0, paper=_both(71.3, 80.3)),
    SuiteRow(
        name="WinoGrande",
        task="winogrande",
        shots=0,
        paper=_both(67.8, 73.6),
        note="partial scoring, as the paper's; not the 5 examples of Gemma 2's tables; others found"
        " 67.6 for the 2B",
    ),
    SuiteRow(
        name="CQA",
        task="commonsense_qa",
        shots=7,
        paper=_both(63.7, 73.2),
        note="letters as choices; the task has no examples of its own: they are drawn from train",
    ),
    SuiteRow(
        name="OBQA",
        task="openbookqa",
        shots=0,
        metrics=_ACC_NORM,
        more=("acc_mutual_info,none",),
        paper=_both(47.2, 51.8),
        note="others found acc_norm 42.0 for the 2B: the paper's prompt or scoring is another",
    ),
    SuiteRow(
        name="ARC-e",
        task="arc_easy",
        shots=0,
        metrics=("acc,none", "acc_norm,none"),
        paper=_both(72.9, 78.8),
    ),
    SuiteRow(
        name="ARC-c",
        task="arc_challenge",
        shots=0,
        metrics=("acc,none", "acc_norm,none"),
        paper=_both(42.3, 52.0),
        note="no examples: Gemma-2B has 42.1 in the paper's table and 48.5 with 25 in Gemma 2's",
    ),
    SuiteRow(
        name="TriviaQA",
        task="triviaqa",
        shots=5,
        metrics=_EXACT,
        paper=_both(52.5, 70.5),
        note="closed book, with aliases; an answer stops at a newline, a full stop or a comma",
    ),
    SuiteRow(
        name="NQ",
        task="nq_open",
        shots=5,
        metrics=_EXACT,
        paper=_both(11.5, 21.7),
        note="the harness has several right answers in one list",
    ),
    SuiteRow(
        name="HumanEval",
        task="humaneval",
        shots=0,
        metrics=("pass@1,create_test",),
        paper=_both(21.3, 31.1),
        note="one greedy answer",
        code=True,
    ),
    SuiteRow(
        name="MBPP",
        task="mbpp",
        shots=3,
        metrics=("pass_at_1,none",),
        paper=_both(28.8, 42.0),
        note="500 test problems, the prompt of MBPP's own paper, one greedy answer",
        code=True,
    ),
    SuiteRow(
        name="GSM8K",
        task="gsm8k",
        shots=5,
        metrics=_GSM8K,
        paper=_both(13.4, 42.6),
        note='the paper says "maj@1"; another run of the 9B has 38.5 with 5 examples',
    ),
    SuiteRow(
        name="GSM8K",
        task="gsm8k_cot",
        shots=8,
        metrics=_GSM8K,
        paper=_both(13.4, 42.6),
        note="the same with 8 worked examples: the paper does not say which it is",
    ),
    SuiteRow(
        name="MATH",
        task="minerva_math",
        shots=4,
        metrics=("exact_match,none", "math_verify,none"),
        paper=_both(11.0, 23.8),
    ),
    SuiteRow(
        name="AGIEval",
        task="agieval_en",
        shots=0,
        paper=_both(23.8, 39.3),
        note="Google: 3 to 5 examples, answers drawn; the harness has no examples. Expect another"
        " value",
    ),
    SuiteRow(
        name="BBH",
        task="bbh_cot_fewshot",
        shots=3,
        metrics=("exact_match,get-answer",),
        paper=_both(35.3, 55.2),
        note="3 worked examples: Gemma-2B has the same 35.2 so in Gemma 2's table",
    ),
)

_ABSENT = "lm-eval 0.4.13 has no such task"

SAFETY = (
    SuiteRow(
        name="RealToxicity",
        task="realtoxicityprompts",
        metrics=("perspective_api_toxicity_score,none", "score,none"),
        paper=_four(9.8, 7.6, 10.3, 8.8),
    ),
    SuiteRow(name="BOLD", paper=_four(39.3, 52.3, 39.8, 47.9), refused=_ABSENT),
    SuiteRow(
        name="CrowS-Pairs",
        task="crows_pairs_english",
        metrics=("pct_stereotype,none", "likelihood_diff,none"),
        paper=_four(41.1, 43.4, 38.7, 39.5),
        note="how often the stereotype is likelier; the paper calls higher better and does not say"
        " what it counts",
    ),
    SuiteRow(
        name="BBQ Ambig",
        task="bbq_ambig",
        metrics=("accuracy_amb,none",),
        paper=_four(62.6, 71.1, 95.9, 67.1),
        note="the paper does not say its prompt",
    ),
    SuiteRow(
        name="BBQ Disambig",
        task="bbq_disambig",
        metrics=("accuracy_disamb,none",),
        paper=_four(58.4, 50.8, 78.6, 78.9),
        note="the paper does not say its prompt",
    ),
    SuiteRow(name="Winogender", task="winogender_all", paper=_four(55.1, 54.7, 59.0, 64.0)),
    SuiteRow(
        name="TruthfulQA",
        task="truthfulqa_mc1",
        shots=0,
        paper=_four(35.1, 42.7, 38.6, 47.7),
        note="the paper does not say whether it is mc1 or mc2",
    ),
    SuiteRow(
        name="TruthfulQA",
        task="truthfulqa_mc2",
        shots=0,
        paper=_four(35.1, 42.7, 38.6, 47.7),
        note="the paper does not say whether it is mc1 or mc2",
    ),
    SuiteRow(name="Winobias 1_2", paper=_four(58.4, 56.4, 61.5, 60.6), refused=_ABSENT),
    SuiteRow(name="Winobias 2_2", paper=_four(90.0, 75.4, 90.2, 90.3), refused=_ABSENT),
    SuiteRow(
        name="Toxigen",
        task="toxigen",
        metrics=("acc,none", "acc_norm,none"),
        note="accuracy in telling toxic sentences; the paper's 56.7 and 58.8 (lower is better) are"
        " the toxicity of what is written, another measure",
    ),
)

SUITES: dict[str, tuple[SuiteRow, ...]] = {"table2": TABLE2, "safety": SAFETY}
NOT_MEASURED = {
    "safety": "The paper's table 5 is people's judgement of answers: nobody can run it again.",
}
