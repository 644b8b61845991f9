"""Ten made-up rows of every data set of table 2 and of the safety suite, in its own columns."""

from __future__ import annotations

from functools import cache
from typing import Any

import datasets

Row = dict[str, Any]
ROWS = 10
_SPLITS = ("train", "validation", "test", "dev")
_CREATURES = ("owl", "cat", "bee", "cow", "hen", "fox", "ant", "emu", "yak", "eel")


def _question(n: int) -> str:
    return f"Where does the {_CREATURES[n]} sleep in winter"


def _choices(n: int, count: int = 4) -> list[str]:
    return [f"in {place} number {n}" for place in ("barns", "trees", "caves", "nests", "huts")][
        :count
    ]


def _mmlu(n: int) -> Row:
    return {"question": _question(n), "choices": _choices(n), "answer": n % 4}


def _hellaswag(n: int) -> Row:
    texts = {"ctx_a": "[header] A farm.", "ctx_b": f"the {_CREATURES[n]}", "activity_label": "Rest"}
    return {**texts, "endings": _choices(n), "label": str(n % 4)}


def _piqa(n: int) -> Row:
    return {"goal": _question(n), "sol1": "Ask it.", "sol2": "Follow it.", "label": n % 2}


def _siqa(n: int) -> Row:
    answers = dict(zip(("answerA", "answerB", "answerC"), _choices(n, 3), strict=True))
    return {"context": "Ann slept.", "question": _question(n), **answers, "label": str(n % 3 + 1)}


def _boolq(n: int) -> Row:
    return {"passage": f"The {_CREATURES[n]} sleeps.", "question": "does it", "label": n % 2}


def _winogrande(n: int) -> Row:
    sentence = f"The {_CREATURES[n]} fled the dog because _ was afraid."
    return {"sentence": sentence, "option1": "it", "option2": "the dog", "answer": str(n % 2 + 1)}


def _lettered(n: int, count: int, name: str = "question") -> Row:
    labels = list("ABCDE"[:count])
    choices = {"text": _choices(n, count), "label": labels}
    return {name: _question(n), "choices": choices, "answerKey": labels[n % count]}


def _math(n: int) -> Row:
    return {"problem": f"What is {n} + 1?", "solution": f"It is $\\boxed{{{n + 1}}}$."}


def _humaneval(n: int) -> Row:
    test = f"def check(f):\n    assert f(1) == {n + 1}\n"
    prompt = f'def add{n}(x):\n    """Add {n}."""\n'
    return {"prompt": prompt, "test": test, "entry_point": f"add{n}", "task_id": f"made/{n}"}


def _mbpp(n: int) -> Row:
    tests = [f"assert add({n}, {m}) == {n + m}" for m in range(3)]
    return {"text": "Add two numbers.", "code": "def add(a, b): return a + b", "test_list": tests}


def _agieval(n: int) -> Row:
    choices = [f"({letter}){text}" for letter, text in zip("ABCD", _choices(n), strict=True)]
    return {"query": f"Q: {_question(n)}? A:", "choices": choices, "gold": [n % 4]}


def _bbq(n: int) -> Row:
    groups = {"ans0": ["f", "old"], "ans1": ["m", "nonOld"], "ans2": ["x", "unknown"]}
    return {
        "ans0": "The grandfather",
        "ans1": "The grandson",
        "ans2": "Can't be determined",
        "context": "A grandfather met his grandson.",
        "question": "Who forgot the phone?",
        "label": n % 3,
        "answer_info": groups,
        "additional_metadata": {"stereotyped_groups": ["old"]},
        "question_polarity": ("neg", "nonneg")[n % 2],
        "context_condition": ("ambig", "disambig")[n // 2 % 2],
        "category": "Age",
    }


def _winogender(n: int) -> Row:
    words = {"occupation": "nurse", "participant": "patient", "pronoun": "she"}
    return {"sentence": f"The nurse told patient {n} that she rests.", **words, "label": n % 2}


def _truthful(n: int) -> Row:
    one = {"choices": _choices(n), "labels": [1, 0, 0, 0]}
    two = {"choices": _choices(n), "labels": [1, 1, 0, 0]}
    return {"question": f"{_question(n)}?", "mc1_targets": one, "mc2_targets": two}


_MAKERS = {
    "cais/mmlu": _mmlu,
    "Rowan/hellaswag": _hellaswag,
    "baber/piqa": _piqa,
    "lighteval/siqa": _siqa,
    "aps/super_glue": _boolq,
    "allenai/winogrande": _winogrande,
    "tau/commonsense_qa": lambda n: _lettered(n, 5),
    "allenai/openbookqa": lambda n: _lettered(n, 4, "question_stem"),
    "allenai/ai2_arc": lambda n: _lettered(n, 4),
    "mandarjoshi/trivia_qa": lambda n: {"question": _question(n), "answer": {"aliases": ["a"]}},
    "google-research-datasets/nq_open": lambda n: {"question": _question(n), "answer": ["a", "b"]},
    "openai/openai_humaneval": _humaneval,
    "google-research-datasets/mbpp": _mbpp,
    "openai/gsm8k": lambda n: {"question": f"What is {n} + 1?", "answer": f"Add.\n#### {n + 1}"},
    "EleutherAI/hendrycks_math": _math,
    "hails/agieval-math": lambda n: {"query": f"Q: {n} + 1? A:", "answer": str(n + 1)},
    "SaylorTwift/bbh": lambda n: {"input": f"Is {n} even?", "target": "Yes"},
    "jannalu/crows_pairs_multilingual": lambda n: {
        "sent_more": f"Owl {n} is lazy.",
        "sent_less": f"Cat {n} is lazy.",
        "bias_type": "age",
    },
    "allenai/real-toxicity-prompts": lambda n: {"prompt": {"text": f"Owl {n} says"}},
    "oskarvanderwal/bbq": _bbq,
    "oskarvanderwal/winogender": _winogender,
    "truthfulqa/truthful_qa": _truthful,
    "RMT-team/babilong-1k-samples": lambda n: {
        "input": f"The {_CREATURES[n]} went to the barn.",
        "question": f"Where is the {_CREATURES[n]}?",
        "target": "barn",
    },
    "skg/toxigen-data": lambda n: {
        "text": f"{_CREATURES[n]}s are rude",
        "toxicity_ai": 1.0 * n,
        "toxicity_human": 1.0,
    },
}


@cache
def _made(path: str) -> datasets.Dataset:
    maker = _agieval if path.startswith("hails/agieval") and path not in _MAKERS else _MAKERS[path]
    return datasets.Dataset.from_list([maker(n) for n in range(ROWS)])


def load_dataset(
    path: str, name: str | None = None, split: str | None = None, **_: Any
) -> datasets.DatasetDict | datasets.Dataset:
    """Stand in for datasets.load_dataset: the same ten rows in every split; FileNotFoundError for
    another set."""
    try:
        made = _made(path)
    except KeyError:
        raise FileNotFoundError(f"{path} is none of the made-up sets") from None
    if split is not None:
        return made
    return datasets.DatasetDict(dict.fromkeys(_SPLITS, made))
