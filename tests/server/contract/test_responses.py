"""/v1/responses by the official client: answers that follow one another by their ids."""

from __future__ import annotations

import openai
import pytest

from tests.support.live_server import NAME
from tests.support.openai_caller import HI


@pytest.fixture
def respond(client):
    def respond(**fields):
        extra = {"seed": 1} | fields.pop("extra_body", {})
        asked = {"model": NAME, "max_output_tokens": 6, "extra_body": extra} | fields
        return client(lambda c: c.responses.create(**asked))

    return respond


def test_one_follows_another(client, respond, llm):
    alone = llm.chat([{"role": "user", "content": "one"}], seed=1, max_tokens=6)
    first = respond(input="one")
    assert first.id.startswith("resp_") and first.output_text == alone.text
    assert first.status == "incomplete" and first.incomplete_details.reason == "max_output_tokens"
    second = respond(input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id and second.output_text
    assert second.usage.input_tokens_details.cached_tokens > 0
    # A second one after the same: as if the other had never been; and the first is as it was.
    again = respond(input="two", previous_response_id=first.id)
    assert again.output_text == second.output_text and again.id != second.id
    assert client(lambda c: c.responses.retrieve(first.id)).output_text == first.output_text
    client(lambda c: c.responses.delete(first.id))
    with pytest.raises(openai.NotFoundError) as caught:
        respond(input="x", previous_response_id=first.id)
    assert caught.value.code == "state_not_found" and caught.value.param == "previous_response_id"
    assert respond(input="three", previous_response_id=second.id).output_text


def test_a_stream_of_events(client, respond):
    whole = respond(input="one")
    events = client.rest(respond(input="one", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text == whole.output_text
    stored = client(lambda c: c.responses.retrieve(events[-1].response.id))
    assert stored.output_text == whole.output_text


def test_messages_in_and_out(respond):
    """A chat's messages as input give a chat's answer; what came out goes in again."""
    first = respond(input=HI)
    assert first.output_text == respond(input="Hi there").output_text
    second = respond(input=[*HI, *first.output, {"role": "user", "content": "and?"}], store=False)
    assert second.output_text
    with pytest.raises(openai.NotFoundError):
        respond(input="x", previous_response_id=second.id)
