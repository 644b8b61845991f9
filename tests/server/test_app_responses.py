"""/v1/responses, alone, in a chain and in a conversation."""

from __future__ import annotations

import openai
import pytest

from tests.support.live_server import NAME
from tests.support.session_talk import talk
from tests.support.waiting import until


def test_responses(live, llm):
    client = live.openai()
    said = ["one", "two"]
    answers = talk(llm, *said)
    fields = {"model": NAME, "max_output_tokens": 6, "extra_body": {"seed": 1}}
    first = client.responses.create(input="one", **fields)
    assert first.output_text == answers[0] and first.status == "incomplete"
    second = client.responses.create(input="two", previous_response_id=first.id, **fields)
    assert second.output_text == answers[1] and second.usage.input_tokens_details.cached_tokens > 0
    other = client.responses.create(input="other", previous_response_id=first.id, **fields)
    assert other.output_text == talk(llm, "one", "other")[1]
    assert client.responses.retrieve(second.id).output_text == answers[1]
    events = list(
        client.responses.create(input="two", previous_response_id=first.id, stream=True, **fields)
    )
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == answers[1]
    assert client.responses.retrieve(events[-1].response.id).output_text == answers[1]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(input="x", previous_response_id=first.id, **fields)
    assert client.responses.create(input="x", previous_response_id=second.id, **fields).status
    unkept = client.responses.create(input="one", store=False, **fields)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_that_goes_on_and_is_not_kept(live, llm, stream):
    client = live.openai()
    fields = {"model": NAME, "max_output_tokens": 6, "extra_body": {"seed": 1}}
    first = client.responses.create(input="one", **fields)
    after = {"previous_response_id": first.id, "store": False, "stream": stream}
    second = client.responses.create(input="two", **after, **fields)
    if stream:
        second = list(second)[-1].response
    assert second.output_text == talk(llm, "one", "two")[1]
    until(
        lambda: (
            second.id not in {info.name for info in live.service.store.within("responses").list()}
        )
    )
    assert client.responses.retrieve(first.id).id == first.id


def test_a_conversation_of_responses(live, llm):
    client = live.openai()
    fields = {
        "model": NAME,
        "max_output_tokens": 6,
        "extra_body": {"seed": 1},
        "conversation": "talk",
    }
    answers = [client.responses.create(input=said, **fields).output_text for said in ("one", "two")]
    assert answers == talk(llm, "one", "two")
