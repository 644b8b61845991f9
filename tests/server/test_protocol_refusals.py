"""Bodies that are refused, and where they are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from griffin.server import protocol as p
from griffin.server.endpoints.chat.body import parse_chat
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from tests.support.request_bodies import LIMITS, USER, parse, refused

WRONG = [
    ("chat", {"messages": []}, "messages"),
    ("chat", {"messages": "hello"}, "messages"),
    ("chat", {"messages": [5]}, "messages[0]"),
    ("chat", {"messages": [*USER, {"role": "owl", "content": "x"}]}, "messages[1].role"),
    ("chat", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("chat", {"messages": [{"content": "x"}]}, "messages[0].role"),
    (
        "chat",
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    ("chat", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ("chat", {"messages": [{"role": "assistant"}]}, "messages[0].content"),
    ("chat", {"messages": [{"role": "user", "content": "x", "tool_calls": [{"id": "1"}]}]}, None),
    ("chat", {"n": 0}, "n"),
    ("chat", {"n": 17}, "n"),
    ("chat", {"n": True}, "n"),
    ("chat", {"n": 1.5}, "n"),
    ("chat", {"n": -(2**70)}, "n"),
    ("chat", {"temperature": -0.1}, "temperature"),
    ("chat", {"temperature": "hot"}, "temperature"),
    ("chat", {"temperature": 10**400}, "temperature"),
    ("chat", {"top_p": 1.01}, "top_p"),
    ("chat", {"max_tokens": 0}, "max_tokens"),
    ("chat", {"max_tokens": -2}, "max_tokens"),
    ("chat", {"n_predict": 0}, "n_predict"),
    ("chat", {"max_tokens": 5, "n_predict": 6}, "max_tokens"),
    ("chat", {"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ("chat", {"seed": 2**63}, "seed"),
    ("chat", {"top_logprobs": 3}, "top_logprobs"),
    ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("chat", {"logprobs": 1}, "logprobs"),
    ("chat", {"stop": ""}, "stop"),
    ("chat", {"stop": ["a", ""]}, "stop[1]"),
    ("chat", {"stop": ["a"] * 17}, "stop"),
    ("chat", {"stop": "x" * 257}, "stop"),
    ("chat", {"stop_token_ids": [1000]}, "stop_token_ids[0]"),
    ("chat", {"stop_token_ids": [1] * 65}, "stop_token_ids"),
    ("chat", {"logit_bias": {"x": 1}}, "logit_bias"),
    ("chat", {"logit_bias": {"1000": 1}}, "logit_bias"),
    ("chat", {"logit_bias": {"-1": 1}}, "logit_bias"),
    ("chat", {"logit_bias": {"1": 101}}, "logit_bias"),
    ("chat", {"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
    ("chat", {"session_id": "../../etc/passwd"}, "session_id"),
    ("chat", {"session_id": "name\n"}, "session_id"),
    ("chat", {"session_id": "n" * 129}, "session_id"),
    ("chat", {"state": "."}, "state"),
    ("chat", {"response_format": {"type": "xml"}}, "response_format.type"),
    ("chat", {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        "chat",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
    ),
    ("chat", {"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
    ("chat", {"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ("chat", {"structured_outputs": {"choice": ["a", ""]}}, "structured_outputs.choice[1]"),
    ("chat", {"structured_outputs": {"regex": ""}}, "structured_outputs.regex"),
    ("chat", {"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
    ("chat", {"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
    ("chat", {"structured_outputs": {"json": "[1]"}}, "structured_outputs.json"),
    ("chat", {"guided_json": '{"const": "\\ud800"}'}, "guided_json"),
    ("chat", {"guided_json": '{"const": 1e999}'}, "guided_json"),
    ("chat", {"guided_json": " " * 70_000 + "{}"}, "guided_json"),
    ("chat", {"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    ("chat", {"structured_outputs": {"grammar": "x" * 70_000}}, "structured_outputs.grammar"),
    ("chat", {"guided_regex": "a", "guided_json": {}}, "guided_regex"),
    ("chat", {"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
    ("response", {"text": {"format": {"type": "json_object"}}, "grammar": "x"}, "grammar"),
    ("completion", {"json_schema": {"a": "x" * 70_000}}, "json_schema"),
    ("chat", {"min_tokens": -1}, "min_tokens"),
    ("chat", {"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ("completion", {"min_tokens": 17}, "min_tokens"),
    ("response", {"min_tokens": 40_000, "max_output_tokens": -1}, "min_tokens"),
    ("chat", {"ignore_eos": 1}, "ignore_eos"),
    ("chat", {"allowed_token_ids": []}, "allowed_token_ids"),
    ("chat", {"allowed_token_ids": [5, 1000]}, "allowed_token_ids[1]"),
    ("chat", {"allowed_token_ids": [1] * 1025}, "allowed_token_ids"),
    ("chat", {"tools": [{"type": "web_search"}]}, None),
    (
        "chat",
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
    ),
    (
        "chat",
        {"tools": [{"type": "function", "function": {"name": "a"}}] * 2},
        "tools[1].function.name",
    ),
    ("chat", {"tools": [], "tool_choice": "required"}, "tool_choice"),
    (
        "chat",
        {"tools": [], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        "tool_choice",
    ),
    ("chat", {"tool_choice": "perhaps"}, "tool_choice"),
    ("completion", {"prompt": []}, "prompt"),
    ("completion", {"prompt": ["a", 1]}, "prompt[1]"),
    ("completion", {"prompt": [1, "a"]}, "prompt[1]"),
    ("completion", {"prompt": [[1], "a"]}, "prompt[1]"),
    ("completion", {"prompt": [[]]}, "prompt[0]"),
    ("completion", {"prompt": [-1]}, "prompt[0]"),
    ("completion", {"prompt": [5, 1000]}, "prompt[1]"),
    ("completion", {"prompt": [[5], [1000]]}, "prompt[1][0]"),
    ("completion", {"prompt": ["a"] * 65}, "prompt"),
    ("completion", {"prompt": ["a"] * 60, "n": 3}, "n"),
    ("completion", {"prompt": None}, "prompt"),
    ("completion", {"logprobs": 21}, "logprobs"),
    ("response", {"input": []}, "input"),
    ("response", {"input": [{"role": "user"}]}, "input[0].content"),
    ("response", {"input": [{"content": "x"}]}, "input[0].role"),
    ("response", {"input": [{"type": "item_reference"}]}, "input[0].id"),
    ("response", {"input": [{"type": "web_search_call"}]}, "input[0].type"),
    ("response", {"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
    ("response", {"input": [{"type": "reasoning"}]}, "input"),
    ("response", {"conversation": "c", "previous_response_id": "r"}, "conversation"),
    ("response", {"conversation": {"id": "a/b"}}, "conversation.id"),
    ("response", {"metadata": {"a": 1}}, "metadata"),
    ("change", {"title": None}, "name"),
    ("session", {"name": ""}, "name"),
    ("session", {"title": "x" * 257}, "title"),
    ("rewind", {"turns": 1, "to": 2}, "to"),
    ("rewind", {"turns": 0}, "turns"),
    ("append", {"text": None}, "text"),
    ("append", {"text": "x", "tokens": [1]}, "tokens"),
    ("append", {"text": ""}, "text"),
    ("state", {"session": "s"}, "session"),
    ("state", {"text": None}, "session"),
    ("state", {"at": 1}, "at"),
    ("tokenize", {"content": "x"}, "prompt"),
    ("detokenize", {"tokens": [1000]}, "tokens[0]"),
    ("detokenize", {"tokens": [0.5]}, "tokens[0]"),
    ("template", {"messages": []}, "messages"),
]


@pytest.mark.parametrize(("kind", "fields", "param"), WRONG)
def test_what_is_wrong_is_refused_with_its_path(kind, fields, param):
    error = refused(kind, **fields)
    assert error.status == 400 and len(error.message) < 400
    if param is not None:
        assert error.param == param
        assert param.partition("[")[0].partition(".")[0] in error.message
    json.loads(error.body())


def test_messages_say_what_was_given_and_what_is_allowed():
    assert (
        refused("chat", n=99).message
        == "n is 99; this server takes at most 16 (raise it with --max-choices)"
    )
    assert (
        refused("chat", temperature="hot").message
        == "temperature is 'hot'; expected a number from 0 to 100 or null"
    )
    assert (
        refused("chat", temperature=101).message
        == "temperature is 101; expected a number from 0 to 100"
    )
    assert (
        refused("chat", tool_choice="x").message
        == "tool_choice is 'x'; expected one of any, auto, none, required"
    )
    assert (
        refused("chat", session_id="a/b").message
        == "session_id is 'a/b'; expected a letter or digit and after it at most 127 letters,"
        " digits, dots, dashes and underscores"
    )
    assert (
        refused("response", metadata={"a": 1}).message
        == "a value in metadata is 1; expected a string of at most 512 characters"
    )
    assert refused("response", metadata={"a" * 65: "x"}).message.startswith("a key of metadata is ")
    assert (
        refused("chat", messages=[]).message
        == "messages is a list of 0; expected a list of 1 or more entries"
    )
    assert refused("chat", messages=[{"content": "x"}]).message == "messages[0].role is missing"
    assert (
        refused("chat", model="").message == "model is ''; expected a string of 1 to 256 characters"
    )
    assert (
        refused("detokenize", tokens=[1, 1000]).message
        == "tokens[1] is token 1000; the vocabulary has ids 0 to 999"
    )


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (
            "chat",
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages[0].content[0].image_url",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        (
            "chat",
            {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
            "messages[0].function_call",
        ),
        (
            "response",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ("append", {"text": None, "messages": [{"role": "user", "content": [IMAGE]}]}, None),
    ],
)
def test_other_than_text_is_refused(kind, fields, param):
    error = refused(kind, **fields)
    assert error.code == "unsupported_parameter"
    assert param is None or error.param == param


NAMESPACE = {"type": "namespace", "name": "n", "tools": []}


@pytest.mark.parametrize(
    ("kind", "fields", "param", "instead"),
    [
        ("completion", {"state_data": "AAAA"}, "state_data", "use /v1/chat/completions"),
        ("completion", {"return_state": True}, "return_state", "use /v1/chat/completions"),
        ("response", {"state_data": "AAAA"}, "state_data", "PUT it to /v1/states/NAME/data"),
        ("response", {"return_state": True}, "return_state", "name it in state"),
        ("response", {"background": True}, "background", "ask with stream"),
        ("response", {"tools": [NAMESPACE]}, "tools[0].tools", "send the functions in it as tools"),
        ("response", {"tools": [{"type": "web_search"}]}, "tools[0].type", "no tools of its own"),
        ("chat", {"tools": [{"type": "code_interpreter"}]}, "tools[0].type", "send functions"),
        ("chat", {"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs", "no arguments"),
    ],
)
def test_what_this_server_lacks_is_refused_with_what_to_do(kind, fields, param, instead):
    error = refused(kind, **fields)
    assert error.code == "unsupported_parameter" and error.param == param
    assert instead in error.message


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth - 1):
        schema = {"anyOf": [schema]} if _ % 2 else {"not": schema}
    return schema


@pytest.mark.parametrize("schema", [nested(200), {"enum": ["x" * 70_000]}], ids=["deep", "long"])
def test_schemas_are_bounded(schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert refused("chat", response_format=form).param == "response_format.json_schema.schema"
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    assert refused("chat", tools=tools).param == "tools[0].function.parameters"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not valid JSON at line 1, column 2"),
        (b"[]", "the body is a list of 0; send a JSON object"),
        (b'{"messages": NaN}', "not valid JSON: it holds NaN"),
        (b'{"messages": [], "temperature": -Infinity}', "not valid JSON: it holds -Infinity"),
        (
            b'{"messages": [{"role": "user", "content": "x"}], "other": -1e999}',
            "a number in the body is out of range",
        ),
        (
            b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
            "temperature is a number out of range; expected a number from 0 to 100",
        ),
        (b'{"messages": "\\ud800"}', "half a surrogate pair"),
        (b'{"messages": "\\ud800\\u0041"}', "half a surrogate pair"),
        (b'{"messages": "\xff"}', "not UTF-8 at byte 14"),
        (b'{"messages": "x\x01"}', "not valid JSON at line 1, column 16"),
        (b'{"messages":' * 5000, "more than 500 levels"),
        (b'{"messages":' + b"[" * 5000, "more than 500 levels"),
        (b'{"messages":' + b"[" * 500 + b"]" * 500 + b"}", "more than 500 levels"),
        (b'{"messages": ' + b"1" * 10_000 + b"}", "out of range"),
    ],
)
def test_bodies_that_are_no_json_object(body, says):
    with pytest.raises(ApiError) as caught:
        parse_chat(body, LIMITS)
    assert caught.value.status == 400 and says in caught.value.message


def test_depth_is_of_brackets_outside_strings():
    inside = '[{"\\' * 600
    assert parse("chat", messages=[{"role": "user", "content": inside}])
    for many in ([[]] * 600, [{}] * 600):
        assert parse("chat", deep=many).ignored == ("deep",)
    deep = json.loads("[" * 499 + "]" * 499)
    assert parse("chat", deep=deep).ignored == ("deep",)


def test_a_large_body_is_refused_before_it_is_read():
    with pytest.raises(ApiError) as caught:
        parse_chat(b"x" * 101, Limits(max_body_bytes=100))
    assert (
        caught.value.status == 413
        and "has 101 bytes; this server accepts 100" in caught.value.message
    )


def test_a_small_body_cannot_ask_for_much_memory():
    limits = Limits(max_json_values=1000)
    for body in (b"[{}]" * 300, b"1," * 2000, b'"x",' * 2000):
        with pytest.raises(ApiError) as caught:
            parse_chat(b'{"x": [' + body + b"1]}", limits)
        assert caught.value.status == 413, body[:8]
    # Brackets and commas in a text are text.
    text = 'a "quoted" [{,\\' * 2000
    assert (
        parse("chat", limits, messages=[{"role": "user", "content": text}]).messages[0].content
        == text
    )


def test_every_limit_of_a_request_is_the_servers_to_choose():
    tight = Limits(
        max_messages=1,
        max_choices=1,
        max_prompts=1,
        max_prompt_tokens=2,
        max_tokens=3,
        default_max_tokens=2,
        max_stop=1,
        max_stop_chars=2,
        max_stop_ids=1,
        max_logprobs=1,
        max_logit_bias=1,
        max_tools=1,
        vocab_size=10,
    )
    for kind, fields in [
        ("chat", {"messages": USER * 2}),
        ("chat", {"n": 2}),
        ("completion", {"prompt": ["a", "b"]}),
        ("completion", {"prompt": [1, 2, 3]}),
        ("chat", {"stop": ["a", "b"]}),
        ("chat", {"stop": "abc"}),
        ("chat", {"stop_token_ids": [1, 2]}),
        ("chat", {"logprobs": True, "top_logprobs": 2}),
        ("chat", {"logit_bias": {"1": 1, "2": 1}}),
        ("chat", {"tools": [{"function": {"name": name}} for name in "ab"]}),
    ]:
        assert "raise it with --max-" in refused(kind, tight, **fields).message
        parse(kind, **fields)
    assert parse("chat", tight).sampling == {"max_tokens": 2}
    assert parse("completion", tight).max_tokens == 3


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "²"}, {"limit": "-1"}]
)
def test_pages(query):
    with pytest.raises(ApiError, match="limit is"):
        p.parse_page(query)
    with pytest.raises(ApiError, match="allowed are asc, desc"):
        p.parse_page({"order": "up"})
    with pytest.raises(ApiError, match="after is"):
        p.parse_page({"after": ""})
