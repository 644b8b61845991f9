"""/v1/conversations: what lies in one is what an answer follows, whatever was read before."""

from __future__ import annotations

import openai
import pytest

from griffin.sessions import Item
from tests.golden.make_responses import WEATHER
from tests.server.test_item_references import FIELDS, said
from tests.support.live_server import endless, serving
from tests.support.session_talk import talk
from tests.support.waiting import until


@pytest.fixture
def client(live):
    return live.openai()


def texts(client, id):
    return [
        (item.role, item.content[0].text)
        for item in client.conversations.items.list(id, order="asc")
        if item.type == "message"
    ]


def chained(client, *inputs):
    """Return the last of answers to these, each after the one before: what was said stays as it was
    chosen, token by token, which its text does not tell."""
    answer = None
    for given in inputs:
        before = answer.id if answer else None
        answer = client.responses.create(input=given, previous_response_id=before, **FIELDS)
    return answer.output_text


def test_a_conversation_is_made_shown_changed_and_deleted(client):
    made = client.conversations.create(metadata={"topic": "owls"})
    assert made.id.startswith("conv_") and made.object == "conversation"
    assert client.conversations.retrieve(made.id) == made and made.metadata == {"topic": "owls"}
    changed = client.conversations.update(made.id, metadata={"topic": "larks"})
    assert changed.metadata == {"topic": "larks"} and changed.created_at == made.created_at
    assert client.conversations.update(made.id, metadata=None).metadata == {}
    item = client.conversations.items.create(made.id, items=[said("one")]).data[0]
    assert client.conversations.delete(made.id).deleted
    for ask in (
        lambda: client.conversations.retrieve(made.id),
        lambda: client.conversations.delete(made.id),
        lambda: client.conversations.items.list(made.id),
        lambda: client.responses.create(input="x", conversation=made.id, **FIELDS),
        lambda: client.responses.create(input=[{"id": item.id}, said("x")], **FIELDS),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()


def test_items_are_added_listed_shown_and_deleted(client):
    made = client.conversations.create(items=[said("Be calm.", "developer"), said("one")])
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "an owl"}
    told = {"type": "message", **said([{"type": "output_text", "text": "two"}], "assistant")}
    added = client.conversations.items.create(made.id, items=[told, call, output])
    assert [item.type for item in added.data] == ["message", call["type"], output["type"]]
    listed = client.conversations.items.list(made.id, order="asc", limit=2)
    ids = [item.id for item in listed]  # page after page
    assert len(ids) == 5 and ids[2:] == [item.id for item in added.data]
    assert [i.id for i in client.conversations.items.list(made.id, limit=2).data] == ids[:2:-1]
    shown = client.conversations.items.retrieve(ids[3], conversation_id=made.id)
    assert (shown.name, shown.arguments, shown.call_id) == ("look", "{}", "c1")
    assert client.conversations.items.delete(ids[2], conversation_id=made.id).id == made.id
    assert ids[2] not in [i.id for i in client.conversations.items.list(made.id)]
    for ask in (
        lambda: client.conversations.items.retrieve(ids[2], conversation_id=made.id),
        lambda: client.conversations.items.delete(ids[2], conversation_id=made.id),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "item_not_found"
    for bad, param in (
        ([{"type": "owl"}], "items[0].type"),
        ([{"role": "user"}], "items[0].content"),
        ([], "items"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.conversations.items.create(made.id, items=bad)
        assert caught.value.param == param
    # One that is known by its id comes along, and gets another where it is already.
    again = client.conversations.items.create(made.id, items=[{"id": ids[1]}]).data[0]
    assert again.id != ids[1] and again.content == listed.data[1].content


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_follows_what_lies_there(client, stream):
    made = client.conversations.create(items=[said("Be calm.", "developer")])
    whole, inputs, read = [("developer", "Be calm.")], [], 0
    for word in ("one", "two", "three"):
        answer = client.responses.create(input=word, conversation=made.id, stream=stream, **FIELDS)
        answer = list(answer)[-1].response if stream else answer
        inputs.append(word if inputs else [said("Be calm.", "developer"), said(word)])
        assert answer.output_text == chained(client, *inputs)
        assert answer.conversation.id == made.id
        assert answer.usage.input_tokens_details.cached_tokens >= read, "it was read again"
        read = answer.usage.input_tokens
        whole += [("user", word), ("assistant", answer.output_text)]
        assert texts(client, made.id) == whole
        assert client.responses.retrieve(answer.id).output_text == answer.output_text
    (last,) = answer.output
    listed = client.conversations.items.list(made.id, limit=1).data
    assert listed[0].id == last.id


def test_what_was_changed_is_followed(client):
    """Items may be put in and taken out: the next answer is that to what is left."""
    made = client.conversations.create()
    for word in ("one", "two"):
        client.responses.create(input=word, conversation=made.id, **FIELDS)
    for item in client.conversations.items.list(made.id, limit=2).data:
        client.conversations.items.delete(item.id, conversation_id=made.id)
    other = client.responses.create(input="another", conversation=made.id, **FIELDS)
    assert other.output_text == chained(client, "one", "another")
    assert other.usage.input_tokens_details.cached_tokens > 0
    more = [said("in between"), said("as I said", "assistant")]
    client.conversations.items.create(made.id, items=more)
    last = client.responses.create(input="and?", conversation=made.id, **FIELDS)
    assert last.output_text == chained(client, "one", "another", [*more, said("and?")])


def test_calls_in_a_conversation(client):
    made = client.conversations.create()
    fields = FIELDS | {"tools": [WEATHER], "max_output_tokens": 60, "conversation": made.id}
    first = client.responses.create(input="one", tool_choice="required", **fields)
    (call,) = first.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = client.responses.create(input=[output], tool_choice="none", **fields)
    plain = call.model_dump(include={"type", "call_id", "name", "arguments"})
    fields |= {"conversation": None, "store": False}
    told = client.responses.create(input=[said("one"), plain, output], tool_choice="none", **fields)
    assert second.output_text == told.output_text
    assert second.usage.input_tokens == told.usage.input_tokens
    kinds = [item.type for item in client.conversations.items.list(made.id, order="asc")]
    assert kinds == ["message", "function_call", "function_call_output", "message"]


def test_what_is_not_stored_is_in_the_conversation_all_the_same(client):
    made = client.conversations.create()
    answer = client.responses.create(input="one", conversation=made.id, store=False, **FIELDS)
    assert texts(client, made.id) == [("user", "one"), ("assistant", answer.output_text)]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_an_answer_that_failed_leaves_nothing(client, live, llm):
    made = client.conversations.create(items=[said("one")])
    with pytest.raises(openai.BadRequestError):
        client.responses.create(
            input="x", conversation=made.id, model="toy", extra_body={"seed": 1}, temperature=-1
        )
    stream = client.responses.create(
        input="two",
        conversation=made.id,
        stream=True,
        model="toy",
        max_output_tokens=4000,
        extra_body=endless(llm),
    )
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    assert live.idle()
    until(lambda: not live.service.store.busy(made.id))
    assert texts(client, made.id) == [("user", "one")]
    answer = client.responses.create(input="three", conversation=made.id, **FIELDS)
    assert answer.output_text == chained(client, [said("one"), said("three")])


def test_ids_exist_once_they_were_made_and_other_names_stay(client, http):
    for named in ({"conversation": "conv_of_mine"}, {"extra_body": {"session_id": "conv_mine"}}):
        with pytest.raises(openai.NotFoundError, match="POST /v1/conversations"):
            client.responses.create(input="x", **FIELDS | named)
    chat = {"messages": [said("x")], "max_tokens": 2}
    hinted = http.post("/v1/chat/completions", json=chat, headers={"x-session-id": "conv_mine"})
    assert hinted.status_code == 200
    assert http.get("/v1/sessions/conv_mine").status_code == 404
    answer = client.responses.create(input="one", conversation="my-own", **FIELDS)
    assert answer.conversation.id == "my-own"
    with pytest.raises(openai.NotFoundError, match="/v1/sessions shows"):
        client.conversations.retrieve("my-own")


def test_a_conversation_among_the_sessions(client, http):
    made = client.conversations.create()
    client.responses.create(input="one", conversation=made.id, **FIELDS)
    path = f"/v1/sessions/{made.id}"
    assert http.get(path).json()["turns"] == 1
    chat = {"messages": [said("x")], "max_tokens": 2, "session_id": made.id}
    for asked, body in (
        ("/v1/chat/completions", chat),
        (f"{path}/append", {"text": "x"}),
        (f"{path}/rewind", {}),
    ):
        refused = http.post(asked, json=body)
        assert refused.status_code == 400 and "is a conversation" in refused.text
    # A fork is a session like any other: it goes on from its turns, and has no items.
    fork = http.post(f"{path}/fork", json={"name": "forked"}).json()
    assert fork["turns"] == 1 and http.get("/v1/conversations/forked").status_code == 404
    assert http.post("/v1/chat/completions", json=chat | {"session_id": "forked"}).is_success
    renamed = http.patch(path, json={"name": "plain"})
    assert renamed.json()["id"] == "plain"
    assert http.get("/v1/conversations/plain").status_code == 404
    assert http.get(f"/v1/conversations/{made.id}").status_code == 404


@pytest.mark.parametrize("body", [{}, {"type": "message", "role": "user", "content": 5}])
def test_a_damaged_item_is_told(client, live, body):
    made = client.conversations.create(items=[said("one")])
    live.service.store.add_items(made.id, [Item("input", {"id": "hurt", **body})])
    with pytest.raises(openai.ConflictError, match="is damaged in the store"):
        client.responses.create(input="two", conversation=made.id, **FIELDS)
    with pytest.raises(openai.ConflictError, match="is damaged in the store"):
        client.responses.create(input=[{"id": "hurt"}, said("two")], **FIELDS)
    client.conversations.items.delete("hurt", conversation_id=made.id)
    assert client.responses.create(input="two", conversation=made.id, **FIELDS).output_text


def test_they_outlive_the_server(llm, tmp_path):
    with serving(llm, tmp_path / "store") as live:
        client = live.openai()
        made = client.conversations.create(metadata={"topic": "owls"})
        answers = [client.responses.create(input="one", conversation=made.id, **FIELDS)]
    with serving(llm, tmp_path / "store") as live:
        client = live.openai()
        assert client.conversations.retrieve(made.id).metadata == {"topic": "owls"}
        answers.append(client.responses.create(input="two", conversation=made.id, **FIELDS))
        assert answers[1].usage.input_tokens_details.cached_tokens > 0
        assert [answer.output_text for answer in answers] == talk(llm, "one", "two")
        assert live.service.store.check() == ()
