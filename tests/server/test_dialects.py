"""What vLLM's and llama.cpp's clients ask of an answer, done by a live server."""

from __future__ import annotations

import json
import re

import openai
import pytest

from tests.support.live_server import NAME
from tests.support.tool_calls import HI, TALLY, TOOLS, ask, valid

RULES = 'root ::= item{2}\nitem ::= "- " [a-z]{1,3} "\\n"'
ITEMS = r"(- [a-z]{1,3}\n){2}"


def content(client, **extra) -> str:
    answer = ask(client, extra_body=extra, max_tokens=60).choices[0]
    assert answer.finish_reason == "stop"
    return answer.message.content


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"structured_outputs": {"regex": "[xy]{3}"}}, "[xy]{3}"),
        ({"guided_regex": "[xy]{3}"}, "[xy]{3}"),
        ({"structured_outputs": {"choice": ["an owl", "ein Käuzchen"]}}, "an owl|ein Käuzchen"),
        ({"guided_choice": ["an owl", "ein Käuzchen"]}, "an owl|ein Käuzchen"),
        ({"structured_outputs": {"grammar": RULES}}, ITEMS),
        ({"structured_outputs": {"grammar": "start: /[xy]/ /[z]/"}}, "[xy]z"),
        ({"guided_grammar": RULES}, ITEMS),
        ({"grammar": RULES}, ITEMS),
    ],
)
def test_texts_of_a_form(client, fields, fits):
    assert re.fullmatch(fits, content(client, **fields))
    made = client.completions.create(
        model=NAME, prompt="x", max_tokens=60, extra_body=fields | {"min_tokens": 50}
    )
    assert re.fullmatch(fits, made.choices[0].text)  # a complete form ends it all the same
    response = client.responses.create(
        model=NAME, input="x", max_output_tokens=60, extra_body=fields
    )
    assert re.fullmatch(fits, response.output_text) and response.text.format.type == "text"


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"json": TALLY}},
        {"structured_outputs": {"json": json.dumps(TALLY)}},
        {"guided_json": TALLY},
        {"json_schema": TALLY},
    ],
)
def test_json_of_a_schema(client, fields):
    answer = ask(client, extra_body=fields).choices[0]
    assert valid("look", answer.message.content) and answer.finish_reason == "stop"


def test_what_cannot_be_held_to(client):
    for fields, param in (
        ({"structured_outputs": {"regex": "(?=a)b"}}, "structured_outputs.regex"),
        ({"guided_grammar": "root ::= owl"}, "guided_grammar"),
        ({"grammar": "start: (" * 99}, "grammar"),
        (
            {"structured_outputs": {"json": {"type": "integer", "minimum": 3, "maximum": 2}}},
            "structured_outputs.json",
        ),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            content(client, **fields)
        assert caught.value.param == param
    raw = client.chat.completions.with_raw_response.create(
        model=NAME,
        messages=HI,
        max_tokens=40,
        extra_body={"guided_json": {"type": "array", "uniqueItems": True, "maxItems": 3}},
    )
    assert raw.headers["x-griffin-ignored"] == "guided_json.uniqueItems"


def test_beside_tools(client):
    with pytest.raises(openai.BadRequestError, match="beside tools it may be JSON") as caught:
        ask(client, tools=TOOLS, extra_body={"guided_regex": "a"})
    assert caught.value.param == "guided_regex"
    silent = ask(client, tools=TOOLS, tool_choice="none", extra_body={"guided_regex": "[ab]{2}"})
    assert re.fullmatch("[ab]{2}", silent.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
def test_answers_of_one_length(client, llm, stream):
    """As benchmarks ask for them: no end of the model's, and none before."""
    ends = {str(id): 100 for id in llm.stop_ids}  # it would end at once
    extra = {"ignore_eos": True}
    common = {"max_tokens": 20, "logit_bias": ends, "stream": stream}
    options = {"stream_options": {"include_usage": True}} if stream else {}
    for made in (
        client.chat.completions.create(
            model=NAME, messages=HI, extra_body=extra, **common, **options
        ),
        client.completions.create(model=NAME, prompt="x", extra_body=extra, **common, **options),
    ):
        last = list(made)[-1] if stream else made
        assert last.usage.completion_tokens == 20
    bare = ask(client, max_tokens=20, logit_bias=ends)
    assert bare.usage.completion_tokens == 1
    held = ask(client, max_tokens=20, logit_bias=ends, extra_body={"min_tokens": 7})
    assert held.usage.completion_tokens == 8 and held.choices[0].finish_reason == "stop"


def test_a_session_goes_on_after_an_answer_that_ignored_an_end(client, llm):
    extra = {"session_id": "ends", "ignore_eos": True}
    ends = {str(id): 3 for id in llm.stop_ids}
    for _ in range(2):
        ask(client, max_tokens=12, logit_bias=ends, extra_body=extra)
    raw = client.chat.completions.with_raw_response.create(
        model=NAME, messages=HI, max_tokens=3, extra_body={"session_id": "ends"}
    )
    assert raw.headers["x-griffin-state"].startswith("session; cached=")


def test_ids_that_may_be_chosen(client, llm):
    made = ask(
        client, max_tokens=9, logprobs=True, extra_body={"allowed_token_ids": [300, 301, 302]}
    )
    said = {token.token for token in made.choices[0].logprobs.content}
    assert said <= {llm.tokenizer.token_text(id) for id in (300, 301, 302)}
    assert made.usage.completion_tokens == 9
