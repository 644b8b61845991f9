"""An assistant's message at the end is how the answer begins: what follows it comes back."""

from __future__ import annotations

import json

import pytest

from griffin.conversation import Conversation, begin
from tests.support.live_server import NAME
from tests.support.request_bodies import parse, refused
from tests.support.session_talk import both, say
from tests.support.tool_calls import TALLY

TALK = [{"role": "user", "content": "one"}, {"role": "assistant", "content": " The answer "}]
GREEDY = {"temperature": 0, "max_tokens": 6}


def chat(client, messages=TALK, **fields):
    return client.chat.completions.create(model=NAME, messages=messages, **GREEDY | fields)


def stored(http, name):
    turns = http.get(f"/v1/sessions/{name}/turns").json()["data"]
    return [turn["text"] for turn in turns if turn["current"]]


def test_what_follows_comes_back_whole_and_streamed(client, llm):
    expected = llm.chat(TALK, **GREEDY)
    vllm = {"continue_final_message": True, "add_generation_prompt": False}
    prefix = [TALK[0], {**TALK[1], "prefix": True}]
    for answer in (chat(client), chat(client, extra_body=vllm), chat(client, prefix)):
        assert answer.choices[0].message.content == expected.text
        assert answer.usage.prompt_tokens == len(llm.chat_format.ids(TALK))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == expected.text
    response = client.responses.create(
        model=NAME, input=TALK, temperature=0, max_output_tokens=6, store=False
    )
    assert response.output_text == expected.text


def test_a_session_keeps_the_whole_turn(client, llm, http, live):
    talk = Conversation(llm, begin(llm, None), sampling=dict(GREEDY))
    first = "".join(talk.say("one"))
    talk.prefill = " The answer "
    second = "".join(talk.say("two")).removeprefix(" The answer ")
    third = "".join(talk.say("three"))
    extra = {"extra_body": {"session_id": "begun"}}
    assert chat(client, TALK[:1], **extra).choices[0].message.content == first
    new = [{"role": "user", "content": "two"}, TALK[1]]
    assert chat(client, new, **extra).choices[0].message.content == second
    assert say(live, "three", session="begun", **GREEDY)[0] == third
    assert stored(http, "begun") == [turn.text for turn in talk.session.turns()]
    # A client that sends everything finds that turn by its text.
    before = both(["one", "two"], [first, f" The answer {second}"])
    third_again, state = say(live, "three", session="begun", before=before, **GREEDY)
    assert third_again == third and state.startswith("session;")


def test_the_first_exchange_of_a_session_may_be_sent_again_and_goes_on(client, llm, http):
    extra = {"extra_body": {"session_id": "again"}}
    cut = chat(client, TALK[:1], **extra).choices[0].message.content
    whole = [TALK[0], {"role": "assistant", "content": cut}]
    more = chat(client, whole, **extra).choices[0].message.content
    assert more == llm.chat(whole, **GREEDY).text
    assert stored(http, "again") == [f"> one\n\n{cut}{more}"]
    # Another message with a beginning is new.
    chat(client, [{"role": "user", "content": "two"}, TALK[1]], **extra)
    assert len(stored(http, "again")) == 2


def test_a_chain_of_responses_goes_on_after_the_whole_answer(client, llm):
    fields = {"model": NAME, "temperature": 0, "max_output_tokens": 6}
    first = client.responses.create(input=TALK, **fields)
    second = client.responses.create(input="two", previous_response_id=first.id, **fields)
    talk = Conversation(llm, begin(llm, None), sampling=dict(GREEDY))
    talk.prefill = TALK[1]["content"]
    assert "".join(talk.say("one")) == talk.session.turns()[0].text.removeprefix("> one\n\n")
    assert second.output_text == "".join(talk.say("two"))


def test_hints_and_states_go_on_too(client, llm, http):
    expected = llm.chat(TALK, **GREEDY).text
    hinted = {"x-openwebui-chat-id": "begun-hint"}
    for _ in range(2):
        answer = chat(client, extra_headers=hinted)
        assert answer.choices[0].message.content == expected
    assert stored(http, "begun-hint") == [f"> one\n\n The answer {expected}"]
    read = {"name": "begun-state", "messages": [{"role": "user", "content": "zero"}]}
    assert http.post("/v1/states", json=read).status_code == 200
    after = chat(client, extra_body={"state": "begun-state"})
    assert after.choices[0].message.content
    assert after.usage.prompt_tokens > len(llm.chat_format.ids(TALK))


@pytest.mark.parametrize("begun", ['{"count": 4', '{"count":12, "word": "o', "{"])
def test_the_form_is_that_of_the_whole_answer(client, begun):
    words = {"count": {"type": "integer", "maximum": 999}, "word": {"enum": ["owl", "oak"]}}
    schema = {**TALLY, "properties": words, "required": ["count", "word"]}
    form = {"type": "json_schema", "json_schema": {"name": "t", "schema": schema, "strict": True}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": TALLY}}]
    messages = [TALK[0], {"role": "assistant", "content": begun}]
    for more in ({}, {"tools": tools}):
        fields = {"response_format": form, "max_tokens": 400, "temperature": 1.0, "seed": 3} | more
        choice = chat(client, messages, **fields).choices[0]
        made = json.loads(begun + choice.message.content)
        assert set(made) == {"count", "word"} and choice.finish_reason == "stop"


@pytest.mark.parametrize(
    ("content", "words"),
    [("No", "no answer of the form that is asked for begins"), ('{"a": 1}', "is whole already")],
)
def test_a_beginning_that_the_form_does_not_have_is_refused(http, content, words):
    schema = {"properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "t", "schema": schema, "strict": True}}
    messages = [TALK[0], {"role": "assistant", "content": content}]
    answer = http.post("/v1/chat/completions", json={"messages": messages, "response_format": form})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "messages") and words in error["message"]


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"continue_final_message": False}, "continue_final_message", "nothing to answer"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
            "send one",
        ),
        (
            {"continue_final_message": True, "messages": TALK[:1]},
            "continue_final_message",
            "the last message is the user's",
        ),
        (
            {"add_generation_prompt": False, "messages": TALK[:1]},
            "add_generation_prompt",
            "a turn of its own",
        ),
        (
            {"messages": [TALK[0], {"role": "assistant", "tool_calls": [CALL]}]},
            "messages",
            "calls tools",
        ),
        ({"messages": [{**TALK[0], "prefix": True}]}, "messages[0].prefix", "only the assistant's"),
        (
            {"messages": [{**TALK[1], "prefix": True}, TALK[0]]},
            "messages[0].prefix",
            "only the assistant's",
        ),
    ],
)
def test_what_no_answer_can_follow_is_refused_by_name(fields, param, words):
    error = refused("chat", **{"messages": TALK} | fields)
    assert (error.status, error.param) == (400, param) and words in error.message


def test_what_says_what_is_so_anyway_is_taken():
    for fields in ({"add_generation_prompt": True}, {"continue_final_message": False}):
        assert parse("chat", messages=TALK[:1], **fields).ignored == ()
    for fields in ({"add_generation_prompt": False}, {"add_generation_prompt": True}):
        assert parse("chat", messages=TALK, **fields).messages[-1].content == " The answer "


def test_the_text_that_is_read(http, llm):
    ids = llm.chat_format.ids(TALK)
    for fields in ({}, {"continue_final_message": True, "add_generation_prompt": False}):
        body = {"messages": TALK, **fields}
        assert http.post("/tokenize", json=body).json()["tokens"] == ids
        prompt = http.post("/apply-template", json=body).json()["prompt"]
        assert prompt.endswith("<start_of_turn>model\n The answer ")
    closed = http.post("/tokenize", json={"messages": TALK, "add_generation_prompt": False})
    assert closed.json()["tokens"] == llm.chat_format.ids(TALK, add_generation_prompt=False)
