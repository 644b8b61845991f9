"""Items by their ids: references to them in /v1/responses, what a response was asked, tokens."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.golden.make_responses import WEATHER
from tests.support.live_server import ALICE, BOB, NAME, guarded, serving
from tests.support.session_talk import talk

REFERENCES: Any = [{"id": "msg_1"}, {"role": "user", "content": "x"}]
FIELDS: Any = {"model": NAME, "max_output_tokens": 6, "extra_body": {"seed": 1}}


@pytest.fixture
def client(live):
    return live.openai()


def said(content, role="user"):
    return {"role": role, "content": content}


@pytest.mark.parametrize("kind", [{"type": "item_reference"}, {}, {"type": None}])
def test_a_reference_is_what_it_refers_to(client, kind):
    """A second turn as the AI SDK sends it: the answer by its id, all else as it was."""
    first = client.responses.create(input="one", **FIELDS)
    reference = {**kind, "id": first.output[0].id}
    told = said(first.output_text, "assistant")
    by_id = client.responses.create(input=[said("one"), reference, said("two")], **FIELDS)
    whole = client.responses.create(input=[said("one"), told, said("two")], **FIELDS)
    assert by_id.output_text == whole.output_text
    assert by_id.usage.input_tokens == whole.usage.input_tokens
    alone = client.responses.create(input=[said("one"), said("two")], **FIELDS)
    assert alone.usage.input_tokens < whole.usage.input_tokens
    # What is referred to is among what it was asked, and can be referred to there.
    asked = client.responses.input_items.list(by_id.id, order="asc").data
    assert [item.id for item in asked][1] == first.output[0].id
    assert [item.content[0].text for item in asked] == ["one", first.output_text, "two"]


def test_a_call_by_its_id(client):
    """The call's own id brings its name and arguments; its output comes by call_id."""
    fields = FIELDS | {"tools": [WEATHER], "max_output_tokens": 60}
    first = client.responses.create(input="one", tool_choice="required", **fields)
    (call,) = first.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    reference = {"type": "item_reference", "id": call.id}
    plain = call.model_dump(include={"type", "call_id", "name", "arguments"})
    answers = [
        client.responses.create(input=[said("one"), way, output], tool_choice="none", **fields)
        for way in (reference, plain)
    ]
    assert answers[0].output_text == answers[1].output_text
    assert answers[0].usage.input_tokens == answers[1].usage.input_tokens
    kinds = [item.type for item in client.responses.input_items.list(answers[0].id, order="asc")]
    assert kinds == ["message", "function_call", "function_call_output"]


def test_ids_go_with_their_response(client):
    first = client.responses.create(input="one", **FIELDS)
    second = client.responses.create(input="two", previous_response_id=first.id, **FIELDS)
    unkept = client.responses.create(input="three", store=False, **FIELDS)
    client.responses.delete(first.id)
    for response in (first, unkept):
        with pytest.raises(openai.NotFoundError) as caught:
            reference = {"type": "item_reference", "id": response.output[0].id}
            client.responses.create(input=[said("a"), reference, said("b")], **FIELDS)
        assert caught.value.code == "item_not_found" and caught.value.param == "input[1].id"
    reference = {"type": "item_reference", "id": second.output[0].id}
    assert client.responses.create(input=[said("a"), reference, said("b")], **FIELDS).output
    for bad in ({"type": "item_reference"}, {"id": ""}, {"id": "x" * 200}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(input=[said("a"), bad, said("b")], **FIELDS)
        assert caught.value.param == "input[1].id"


def test_ids_are_of_the_key_that_made_them(llm, tmp_path):
    with guarded(llm, tmp_path / "store") as live:
        alice, bob = live.openai(ALICE), live.openai(BOB)
        fields = FIELDS | {"max_output_tokens": 4}
        first = alice.responses.create(input="one", **fields)
        asked = [said("one"), {"id": first.output[0].id}, said("two")]
        assert alice.responses.create(input=asked, **fields).output
        with pytest.raises(openai.NotFoundError):
            bob.responses.create(input=asked, **fields)
        with pytest.raises(openai.NotFoundError):
            bob.responses.input_items.list(first.id)
        made = alice.conversations.create(items=[said("one")])
        for ask in (
            lambda: bob.conversations.retrieve(made.id),
            lambda: bob.conversations.items.list(made.id),
            lambda: bob.conversations.delete(made.id),
            lambda: bob.conversations.items.create(made.id, items=[said("x")]),
            lambda: bob.conversations.update(made.id, metadata={}),
            lambda: bob.responses.create(input="x", conversation=made.id, **fields),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
        assert alice.conversations.retrieve(made.id).id == made.id


def test_references_bring_no_more_than_a_body_may(llm, tmp_path):
    """A thousand references to a long text would be a thousand times that text."""
    with guarded(llm, tmp_path / "store") as live:  # bodies of 100,000 bytes
        client = live.openai(ALICE)
        made = client.conversations.create(items=[said("x" * 50_000)])
        client.conversations.items.create(made.id, items=[said("x" * 50_000)])
        ids = [item.id for item in client.conversations.items.list(made.id)]
        page = client.conversations.items.list(made.id, limit=2)
        assert len(page.data) == 2 and not page.has_more
        for _ in range(2):
            client.conversations.items.create(made.id, items=[said("y" * 90_000)])
            client.conversations.items.create(made.id, items=[{"id": ids[0]}] * 2)
        page = client.conversations.items.list(made.id, limit=20)
        assert len(page.data) < 8 and page.has_more and len(list(page)) == 8
        for asked in (
            {"input": [{"id": ids[0]}] * 9},
            {"input": "x", "conversation": made.id},
        ):
            with pytest.raises(openai.BadRequestError, match="bytes together"):
                client.responses.create(**asked, **FIELDS)


def test_what_a_response_was_asked_comes_in_pages(client):
    asked = [said(f"word {n}", role) for n, role in enumerate(["developer", *["user"] * 4])]
    asked.append({"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]})
    answer = client.responses.create(input=asked, **FIELDS)
    whole = client.responses.input_items.list(answer.id, order="asc")
    texts = ["".join(part.text for part in item.content) for item in whole]
    assert texts == [*(f"word {n}" for n in range(5)), "ab"]
    assert [item.role for item in whole] == ["developer", *["user"] * 5]
    ids = [item.id for item in whole]
    assert len(set(ids)) == 6 and all(id.startswith("msg_") for id in ids)
    page = client.responses.input_items.list(answer.id, limit=4)
    assert [item.id for item in page.data] == ids[:1:-1] and page.has_more
    assert [item.id for item in page] == ids[::-1], "the client asks for the next page by itself"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.input_items.list(answer.id, after=answer.output[0].id)
    assert caught.value.param == "after"
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list("resp_nobody")


def test_tokens_are_counted_as_they_are_read(client, live):
    def both(**fields):
        count = client.responses.input_tokens.count(model=NAME, **fields).input_tokens
        answer = client.responses.create(**FIELDS, **fields)
        assert count == answer.usage.input_tokens
        return answer

    before = live.service.store.usage()
    client.responses.input_tokens.count(model=NAME, input="one")
    client.responses.input_tokens.count(model=NAME, input="one", conversation="not-yet")
    assert live.service.store.usage() == before
    first = both(input="one", instructions="Be calm.", tools=[WEATHER], tool_choice="none")
    both(input="two", previous_response_id=first.id, instructions="Be kind.")
    both(input=[said("one"), {"id": first.output[0].id}, said("two")])
    both(input="three", conversation="talk-of-tokens")
    both(input="four", conversation="talk-of-tokens")
    made = client.conversations.create(items=[said("one"), said("two", "assistant")])
    both(input="three", conversation=made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.input_tokens.count(input="x", conversation="conv_nobody")
    assert live.idle()


def test_a_server_that_keeps_nothing(llm):
    with serving(llm) as live:
        client = live.openai()
        for ask in (
            lambda: client.conversations.create(),
            lambda: client.responses.create(input=REFERENCES, **FIELDS),
        ):
            with pytest.raises(openai.BadRequestError, match="--store"):
                ask()
        assert client.responses.input_tokens.count(input="one").input_tokens > 1


def test_answers_are_those_of_a_session(live, llm):
    """A chain by ids of responses is read as ever."""
    client = live.openai()
    first = client.responses.create(input="one", **FIELDS)
    second = client.responses.create(input="two", previous_response_id=first.id, **FIELDS)
    assert [first.output_text, second.output_text] == talk(llm, "one", "two")
