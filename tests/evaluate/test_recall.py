"""Questions about long texts: exact by seed, of the length that was asked for, with one answer."""

from __future__ import annotations

import math

import pytest
import torch

import griffin
from griffin.evaluate.recall import TASKS, made_up_prose, sentences_of, sized
from griffin.evaluate.recalled import measure_recall
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return griffin.load(write_toy(tmp_path_factory.mktemp("model") / "toy"), device="cpu")


def count(text: str) -> int:
    return len(text) // 3 + 1


@pytest.mark.parametrize("task", TASKS)
def test_a_question_has_its_length_and_its_answer_where_it_says(task):
    for number, tokens in enumerate((120, 500, 3000)):
        asked = sized(task, tokens, number, seed=7, count=count)
        assert tokens - 45 < count(asked.prompt + asked.answer) <= tokens
        assert asked == sized(task, tokens, number, seed=7, count=count)
        assert asked != sized(task, tokens, number + 1, seed=7, count=count)
        last = asked.answer.split()[-1]
        assert last in asked.prompt[: asked.fact] and last not in asked.prompt[asked.fact :]


def test_the_answer_follows_from_the_text_alone():
    """Each question solved by hand from its prompt."""
    asked = {task: sized(task, 900, 3, seed=1, count=count) for task in TASKS}
    prompts = {task: each.prompt for task, each in asked.items()}
    answers = {task: each.answer for task, each in asked.items()}
    question = prompts["niah"].rsplit("\n\n", 1)[1]
    (found,) = [line for line in sentences_of(prompts["niah"]) if line.startswith(question)][:1]
    assert found == question + answers["niah"] + "."
    book = dict(line.split(":") for line in prompts["phonebook"].split("\n")[:-2])
    assert book[prompts["phonebook"].rsplit("\n", 1)[1].rstrip(":")] == answers["phonebook"]
    assert prompts["copy"] == f"Text:{answers['copy']}\nText:"
    shown = prompts["selective_copy"].split("\n")[0].removeprefix("Words:")
    assert shown.replace(" .", "") == answers["selective_copy"] and shown.count(" .") > 16
    words = prompts["induction"].split()
    assert " " + words[words.index(words[-1]) + 1] == answers["induction"]
    text, question = prompts["recall"].split("\nThe value of ")
    assert eval(text)[eval(question.removesuffix(' is "'))] == answers["recall"]


def test_prose_of_ones_own_and_refusals():
    prose = sentences_of("One is here. Two are\nthere! Three?")
    assert prose == ["One is here.", "Two are there!", "Three?"]
    asked = sized("niah", 60, 0, seed=0, count=count, prose=prose)
    assert "Two are there!" in asked.prompt and "river" not in asked.prompt
    assert made_up_prose(1) == made_up_prose(1) != made_up_prose(2)
    with pytest.raises(ValueError, match="no task 'needle'; there are niah, phonebook, "):
        sized("needle", 60, 0, seed=0, count=count)
    with pytest.raises(ValueError, match="the shortest question of copy has 9 tokens, not 5"):
        sized("copy", 5, 0, seed=0, count=lambda text: 9)


def test_what_is_measured_is_what_scoring_says(llm):
    (found,) = measure_recall(llm, ["phonebook"], [200], questions=3, seed=4)
    nats, tokens, right = 0.0, 0, 0
    for number in range(3):
        asked = sized(
            "phonebook", 200, number, seed=4, count=lambda text: len(llm.tokenizer.encode(text))
        )
        ids = llm.tokenizer.encode(asked.prompt + asked.answer)
        first = len(llm.tokenizer.encode(asked.prompt))
        nats -= math.fsum(llm.score(ids).logprobs[first - 1 :])
        tokens += len(ids) - first
        best = llm.model(torch.tensor([ids]))[0][0, first - 1 : -1].argmax(1).tolist()
        right += sum(a == b for a, b in zip(best, ids[first:], strict=True))
    assert found.nats == pytest.approx(nats / tokens, abs=1e-6)
    assert found.right == pytest.approx(right / tokens)
    assert (found.task, found.tokens, found.questions) == ("phonebook", 200, 3)
    assert 0 < found.distance < 200 and 0 <= found.exact <= found.right
