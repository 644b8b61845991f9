"""Anthropic's official client before a live server, in an environment of its own."""

from __future__ import annotations

import json

import pytest

from tests.server.contract.test_pages import here, snippets
from tests.support.foreign import Foreign, python_with
from tests.support.live_server import NAME
from tests.support.tool_calls import TALLY, valid

pytestmark = pytest.mark.slow

HI = [{"role": "user", "content": "Hi there"}]
ASKED = {"model": NAME, "messages": HI, "max_tokens": 8, "extra_body": {"seed": 1}}
TOOLS = [{"name": "look", "input_schema": TALLY}]
PRELUDE = """
from anthropic import Anthropic, AsyncAnthropic
options = {{"base_url": "{url}", "api_key": "none", "max_retries": 0}}
clients = Anthropic(**options), AsyncAnthropic(**options)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return python_with(tmp_path_factory.mktemp("anthropic") / "venv", "anthropic")


@pytest.fixture(scope="module")
def there(python, live):
    return Foreign(python, PRELUDE.format(url=live.url))


def test_the_answer_is_the_models(there, llm):
    def whole(client, other, asked):
        import asyncio

        made = [client.messages.create(**asked), asyncio.run(other.messages.create(**asked))]
        return [one.to_dict() for one in made]

    alone = llm.chat(HI, seed=1, max_tokens=8)
    for made in there(whole, ASKED):
        assert made["content"][0]["text"] == alone.text and made["stop_reason"] == "max_tokens"
        used = made["usage"]
        assert used["input_tokens"] + used["cache_read_input_tokens"] == alone.prompt_tokens


def test_streams_are_put_together(there, llm):
    def streamed(client, other, asked):
        import asyncio

        async def all_of(stream):
            async with stream as events:
                kinds = [event.type async for event in events]
                return kinds, (await events.get_final_message()).to_dict()

        with client.messages.stream(**asked) as events:
            kinds = [event.type for event in events]
            made = events.get_final_message().to_dict()
        return [(kinds, made), asyncio.run(all_of(other.messages.stream(**asked)))]

    alone = llm.chat(HI, seed=1, max_tokens=8)
    for kinds, made in there(streamed, ASKED):
        assert made["content"][0]["text"] == alone.text
        assert made["usage"]["output_tokens"] == 8 and made["stop_reason"] == "max_tokens"
        assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]


def test_tools_go_round(there):
    def talk(client, other, asked):
        first = client.messages.create(**asked, tool_choice={"type": "any"})
        with client.messages.stream(**asked, tool_choice={"type": "any"}) as events:
            streamed = events.get_final_message()
        uses = [block for block in first.content if block.type == "tool_use"]
        results = [
            {"type": "tool_result", "tool_use_id": use.id, "content": "an owl"} for use in uses
        ]
        messages = [
            *asked["messages"],
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]
        again = client.messages.create(**asked | {"messages": messages, "max_tokens": 8})
        return [first.to_dict(), streamed.to_dict(), again.to_dict()]

    first, streamed, again = there(talk, ASKED | {"tools": TOOLS, "max_tokens": 400})
    for made in (first, streamed):
        assert made["stop_reason"] == "tool_use"
        assert all(valid(use["name"], json.dumps(use["input"])) for use in made["content"])
    inputs = [[use["input"] for use in made["content"]] for made in (first, streamed)]
    assert inputs[0] == inputs[1] and again["usage"]["cache_read_input_tokens"] > 0


def test_tokens_are_counted(there, llm):
    def count(client, other, asked):
        return client.messages.count_tokens(**asked).input_tokens

    asked = {"model": NAME, "messages": HI}
    assert there(count, asked) == llm.chat(HI, max_tokens=1).prompt_tokens
    assert there(count, asked | {"tools": TOOLS, "system": "x"}) > there(count, asked)


def test_refusals_are_its_own_errors(there):
    def refused(client, other, asked):
        try:
            client.messages.create(**asked)
        except Exception as error:
            return [type(error).__name__, error.status_code, error.request_id, str(error)]  # pyright: ignore

    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/x"}}
    for fields, name, status, words in (
        ({"model": "other"}, "NotFoundError", 404, "there is no model 'other'"),
        ({"max_tokens": -2}, "BadRequestError", 400, "max_tokens is -2"),
        ({"messages": [{"role": "user", "content": [image]}]}, "BadRequestError", 400, "'image'"),
    ):
        kind, code, id, message = there(refused, ASKED | fields)
        assert (kind, code) == (name, status) and id.startswith("req_") and words in message


def test_models_are_listed(there):
    def listed(client, other):
        return [model.id for model in client.models.list()]

    assert there(listed) == [NAME]


def test_the_page(there, live):
    printed = there.run(here("\n".join(snippets("anthropic.md", "python")), live))
    assert "end_turn" in printed or "max_tokens" in printed or "stop_sequence" in printed
    assert "ToolUseBlock" in printed or "TextBlock" in printed
    assert live.idle()
