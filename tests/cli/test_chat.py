"""`griffin chat`: turns that read only what is new, and the small commands."""

from __future__ import annotations

import pytest

import griffin
from griffin.cli import chat
from griffin.cli.chat import Conversation

FIELDS = {"temperature": 0, "max_tokens": 9}


@pytest.fixture(scope="module")
def llm(folder):
    return griffin.load(folder, device="cpu")


def said(talk, message):
    return "".join(talk.say(message))


def watch_reads(llm, monkeypatch):
    """Return a list that collects how many tokens each call of the model reads."""
    sizes: list[int] = []
    trunk = llm.model.trunk
    monkeypatch.setattr(llm.model, "trunk", lambda t, *a, **k: sizes.append(t.shape[1]) or trunk(t, *a, **k))
    return sizes


def test_turns_equal_the_whole_conversation(llm, monkeypatch):
    talk = Conversation(llm, "Be brief.", FIELDS)
    first = said(talk, "one")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    assert first == llm.chat(messages, **FIELDS).text
    answer = list(llm.chat(messages, **FIELDS).ids)
    sizes = watch_reads(llm, monkeypatch)
    second = said(talk, "two")
    monkeypatch.undo()
    new = llm.chat_format.turn_ids({"role": "user", "content": "two"})
    assert sizes[0] == 1 + len(new), "only the last token of the answer and the new turn are read"
    whole = llm.chat_format.ids(messages) + answer + new
    assert second == llm.generate(whole, **FIELDS).text
    assert talk.context.tokens == len(whole) + 9


@pytest.mark.parametrize("which", ["eos_id", "end_of_turn_id"])
def test_a_turn_that_the_model_ended_is_not_ended_twice(llm, which):
    stop = getattr(llm.tokenizer, which)
    talk = Conversation(llm, None, {"logit_bias": {stop: 100.0}})
    assert said(talk, "one") == ""
    talk.set("logit_bias", {})
    talk.set("max_tokens", 4)
    talk.set("temperature", 0)
    answer = said(talk, "two")
    end = llm.tokenizer.end_of_turn_id
    turn = {"role": "user", "content": "one"}
    whole = [*llm.chat_format.ids([turn]), end]
    whole += llm.chat_format.turn_ids({"role": "user", "content": "two"}, closed=True)
    assert answer == llm.generate(whole, temperature=0, max_tokens=4).text
    assert talk.context.tokens == len(whole) + 4


def test_an_answer_that_is_stopped_stays_said(llm):
    talk = Conversation(llm, None, FIELDS)
    pieces = talk.say("one")
    for _ in range(3):
        next(pieces)
    pieces.close()
    start = llm.chat_format.ids([{"role": "user", "content": "one"}])
    assert talk.context.tokens == len(start) + 3 and "cancelled" in talk.report
    part = list(llm.generate(start, temperature=0, max_tokens=3).ids)
    new = llm.chat_format.turn_ids({"role": "user", "content": "two"})
    assert said(talk, "two") == llm.generate(start + part + new, **FIELDS).text


def test_an_interrupted_step_leaves_the_conversation_as_it_was(llm, monkeypatch):
    talk = Conversation(llm, None, FIELDS)
    said(talk, "one")
    before = talk.context

    def torn(*_arguments, **_options):
        raise KeyboardInterrupt

    pieces = talk.say("two")
    next(pieces)
    monkeypatch.setattr(llm.model, "trunk", torn)
    with pytest.raises(KeyboardInterrupt):
        list(pieces)
    monkeypatch.undo()
    assert talk.context is before
    fresh = Conversation(llm, None, FIELDS)
    said(fresh, "one")
    assert said(talk, "three") == said(fresh, "three")


def test_the_terminal(run, folder, llm):
    script = (
        "one\n"
        '"""two\nlines"""\n'
        "/tokens\n/set temperature 0.5\n/set top_p 7\n/set temprature 1\n/nothing\n"
        "/clear\n/tokens\n/system Be kind.\none\n/help\n/bye\nnever said\n"
    )
    result = run("chat", "--model", folder, "--temperature", 0, "--max-tokens", 9, stdin=script)
    assert result.exit_code == 0, result.output
    talk = Conversation(llm, None, FIELDS)
    first, second = said(talk, "one"), said(talk, "two\nlines")
    count = talk.context.tokens
    assert result.stdout.startswith(f"{first}\n{second}\n{count:,} tokens in the conversation\n")
    for line in (
        "temperature = 0.5\n",
        "top_p must be",
        "did you mean 'temperature'",
        "no command /nothing",
        "a new conversation\n0 tokens in the conversation\n",
        "a new conversation with this system text\n",
        "/system TEXT",
    ):
        assert line in result.stdout
    assert result.stdout.rstrip().endswith("stop the answer")


def test_set_reads_values(llm):
    assert [chat._parsed(text) for text in ("3", "0.5", "none", "word")] == [3, 0.5, None, "word"]


def test_ctrl_c_stops_the_answer_and_not_the_program(llm, monkeypatch, capsys):
    talk = Conversation(llm, None, {"temperature": 0, "max_tokens": 500})
    count = 0
    say = talk.say

    def press(message):
        nonlocal count
        for text in say(message):
            yield text
            count += 1
            if count == 4:
                import signal

                signal.raise_signal(signal.SIGINT)

    assert count == 0
    pieces = press("one")
    monkeypatch.setattr(talk, "say", lambda _message: pieces)
    chat._answer(talk, "one", stats=False)
    assert 4 <= count <= 6
    assert capsys.readouterr().out.endswith("\n")
