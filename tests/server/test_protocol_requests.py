"""Bodies to requests: what is read, what is refused and where, what is passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from griffin.sampling import SamplingParams
from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import policy
from griffin.server.protocol.chat import ChatBody
from griffin.server.protocol.completions import CompletionBody
from griffin.server.protocol.responses import ResponseBody
from griffin.server.protocol.shape import shape_of

LIMITS = Limits(vocab_size=1000)
USER = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object"}
PARSERS: dict[str, tuple[Callable[[bytes, Limits], Any], dict[str, Any]]] = {
    "chat": (p.parse_chat, {"messages": USER}),
    "completion": (p.parse_completion, {"prompt": "hello"}),
    "response": (p.parse_response, {"input": "hello"}),
    "session": (p.parse_session_create, {}),
    "change": (p.parse_session_change, {"title": "owls"}),
    "fork": (p.parse_fork, {}),
    "rewind": (p.parse_rewind, {}),
    "append": (p.parse_append, {"text": "hello"}),
    "state": (p.parse_state_create, {"name": "owls", "text": "hello"}),
    "tokenize": (p.parse_tokenize, {"prompt": "hello"}),
    "detokenize": (p.parse_detokenize, {"tokens": [1]}),
    "template": (p.parse_template, {"messages": USER}),
}


def parse(kind: str, limits: Limits = LIMITS, /, **fields: Any) -> Any:
    parser, least = PARSERS[kind]
    return parser(json.dumps(least | fields).encode(), limits)


def refused(kind: str, limits: Limits = LIMITS, /, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(kind, limits, **fields)
    assert 400 <= caught.value.status < 500 and caught.value.headers["x-should-retry"] == "false"
    return caught.value


# --- what is used ---


def test_every_sampling_field_arrives_as_sampling_params_takes_it():
    fields = {
        "temperature": 0.25,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "presence_penalty": -1,
        "frequency_penalty": 0.5,
        "logit_bias": {"7": -100, "12": 1.5},
        "seed": 3,
        "stop": ["a", "b"],
        "stop_token_ids": [4, 5],
    }
    chat = parse("chat", **fields, logprobs=True, top_logprobs=2, max_completion_tokens=9)
    completion = parse("completion", **fields, logprobs=2, max_tokens=9)
    response = parse("response", **fields, top_logprobs=2, max_output_tokens=9)
    assert chat.sampling == completion.sampling == response.sampling
    params = SamplingParams.from_dict(chat.sampling)
    assert params == SamplingParams(
        temperature=0.25,
        top_k=5,
        top_p=0.5,
        min_p=0.125,
        repetition_penalty=1.5,
        presence_penalty=-1,
        frequency_penalty=0.5,
        logit_bias={7: -100, 12: 1.5},
        seed=3,
        stop=("a", "b"),
        stop_ids=(4, 5),
        logprobs=2,
        max_tokens=9,
    )


def test_what_is_null_or_absent_is_left_to_the_models_defaults():
    nothing = dict.fromkeys(ChatBody.__struct_fields__) | {"messages": USER}
    assert parse("chat", **nothing) == parse("chat")
    assert parse("chat").sampling == {"max_tokens": LIMITS.default_max_tokens}
    assert parse("completion").sampling == {"max_tokens": 16}


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_p": 0}, {"top_k": 1}),
        ({"top_p": 0, "top_k": 40}, {"top_k": 1}),
        ({"seed": -1}, {"seed": 2**63 - 1}),
        ({"stop": "x"}, {"stop": ("x",)}),
        ({"stop": []}, {}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"max_tokens": 5, "max_completion_tokens": 5}, {"max_tokens": 5}),
    ],
)
def test_dialects_of_sampling(given, arguments):
    sampling = parse("chat", **given).sampling
    assert sampling == {"max_tokens": LIMITS.default_max_tokens} | arguments
    SamplingParams.from_dict(sampling)


def test_messages_become_plain_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "x"}}]
    asked = parse(
        "chat",
        messages=[
            {"role": "developer", "content": "rules"},
            {"role": "user", "content": parts, "name": "Ada"},
            {"role": "model", "content": "reply"},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
        ],
    )
    assert asked.messages == (
        p.Message("system", "rules"),
        p.Message("user", "ab", name="Ada"),
        p.Message("assistant", "reply"),
        p.Message("assistant", "no"),
        p.Message("assistant", "never"),
    )
    assert asked.ignored == ()


def test_turns_alternate_and_lose_nothing():
    said = [
        *(p.Message("system", "s1"), p.Message("system", "s2"), p.Message("user", "u1")),
        *(p.Message("user", "u2"), p.Message("assistant", "a1"), p.Message("assistant", "a2")),
        *(p.Message("system", "s3"), p.Message("user", "u3")),
    ]
    assert p.turns(said) == [
        {"role": "system", "content": "s1\n\ns2"},
        {"role": "user", "content": "u1\n\nu2"},
        {"role": "assistant", "content": "a1\n\na2"},
        {"role": "user", "content": "s3\n\nu3"},
    ]
    with pytest.raises(ValueError, match=r"messages\[0\] is about a tool"):
        p.turns([p.Message("tool", "x", tool_call_id="1")])


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        (None, p.ToolChoice("auto")),
        ("any", p.ToolChoice("required")),
        ("required", p.ToolChoice("required")),
        ("none", p.ToolChoice("none")),
        ({"type": "function", "function": {"name": "f"}}, p.ToolChoice("required", "f")),
    ],
)
def test_tools(choice, read):
    tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}]
    asked = parse("chat", tools=tools, tool_choice=choice, parallel_tool_calls=False)
    assert asked.tools == (p.Tool("f", "", SCHEMA, True),)
    assert asked.tool_choice == read and asked.parallel_tool_calls is False
    flat = [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}]
    if isinstance(choice, dict):
        choice = {"type": "function", "name": "f"}
    answered = parse("response", tools=flat, tool_choice=choice)
    assert (answered.tools, answered.tool_choice) == (asked.tools, read)
    assert parse("chat", tool_choice="auto").tool_choice == p.ToolChoice("none")


def test_formats():
    wrapped = {"type": "json_schema", "json_schema": {"name": "owl", "schema": SCHEMA, "strict": True}}
    assert parse("chat", response_format=wrapped).format == p.JsonFormat(SCHEMA, "owl", True)
    assert parse("chat", response_format={"type": "json_object"}).format == p.JsonFormat()
    assert parse("chat", response_format={"type": "text"}).format is None
    flat = {"format": {"type": "json_schema", "name": "owl", "schema": SCHEMA}, "verbosity": "low"}
    asked = parse("response", text=flat)
    assert asked.format == p.JsonFormat(SCHEMA, "owl") and asked.ignored == ()


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_prompts_of_every_kind(prompt, prompts):
    assert parse("completion", prompt=prompt).prompts == prompts


def test_a_prompt_that_is_only_measured():
    asked = parse("completion", echo=True, logprobs=1, max_tokens=0)
    assert asked.echo and asked.max_tokens == 0 and asked.sampling == {"logprobs": 1}


def test_input_items_of_a_response():
    asked = parse(
        "response",
        instructions="be brief",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "let me look", "annotations": [], "logprobs": []}
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "two"}],
            },
        ],
    )
    calls = (p.ToolCall("c1", "f", "{}"), p.ToolCall("c2", "g", "{}"))
    assert asked.messages == (
        p.Message("system", "be brief"),
        p.Message("user", "hi"),
        p.Message("assistant", "let me look", tool_calls=calls),
        p.Message("tool", "one", tool_call_id="c1"),
        p.Message("tool", "two", tool_call_id="c2"),
    )
    assert asked.ignored == () and asked.store is True


def test_sessions_and_states():
    made, ignored = p.parse_session_create(b"", LIMITS)
    assert (made.name, made.title, made.state, ignored) == (None, None, None, ())
    assert parse("fork", at=3)[0].at == 3
    assert (parse("rewind")[0].turns, parse("rewind", to=4)[0].turns) == (1, None)
    assert parse("append", text=None, tokens=[1, 2])[0] == p.Reading(tokens=(1, 2))
    assert parse("append", text=None, messages=USER)[0].messages == (p.Message("user", "hello"),)
    state, ignored = parse("state", text=None, session="s", at=2, color="red")
    assert (state.session, state.at, state.reading, ignored) == ("s", 2, None, ("color",))
    page = p.parse_page({"limit": "7", "after": "x", "order": "asc"})
    assert page == p.Page(7, "x", newest=False) and p.parse_page({}) == p.Page()


def test_tokenize_in_both_dialects():
    vllm = parse("tokenize", return_token_strs=True)
    assert (vllm.text, vllm.bos, vllm.pieces) == ("hello", True, True)
    llama = parse("tokenize", prompt=None, content="hello", with_pieces=True)
    assert (llama.text, llama.bos, llama.pieces) == ("hello", False, True)
    assert parse("tokenize", add_special_tokens=False).bos is False
    assert parse("tokenize", prompt=None, content="x", add_special=True).bos is True
    chat = parse("tokenize", prompt=None, messages=USER, add_generation_prompt=False)
    assert chat.messages and chat.text is None and not chat.add_generation_prompt


# --- which conversation ---


def test_the_order_of_precedence():
    headers = {"x-session-id": "own", "x-openwebui-chat-id": "web", "x-conversation-id": "conv"}
    everything = {
        "session_id": "body",
        "previous_response_id": "resp_1",
        "conversation": "talk",
        "prompt_cache_key": "key",
    }
    expected = [
        p.Identity("session", "body", "session_id"),
        p.Identity("response", "resp_1", "previous_response_id"),
        p.Identity("session", "talk", "conversation"),
        p.Identity("session", "own", "x-session-id"),
        p.Identity("session", "web", "x-openwebui-chat-id"),
        p.Identity("session", "conv", "x-conversation-id"),
        p.Identity("cache_key", "key", "prompt_cache_key"),
        p.Identity("none"),
    ]
    for identity in expected:
        assert p.identify(headers, **everything) == identity
        everything.pop(identity.source, None)
        headers.pop(identity.source, None)


def test_identities_that_are_none():
    chat = parse("chat")
    # open-webui's chats that must not be kept, and anything that could be a path, name no session.
    assert chat.identity({"x-openwebui-chat-id": "local:abc"}).kind == "none"
    assert chat.identity({"x-conversation-id": "../../etc"}).kind == "none"
    with pytest.raises(ApiError, match="X-Session-Id is no name"):
        chat.identity({"x-session-id": "../../etc"})
    three = parse("chat", n=3)
    assert three.identity({"x-openwebui-chat-id": "web"}).kind == "none"
    with pytest.raises(ApiError, match="3 answers were asked for"):
        three.identity({"x-session-id": "own"})
    with pytest.raises(ApiError, match="2 answers were asked for"):
        parse("completion", prompt=["a", "b"], session_id="s").identity({})
    assert p.state_header("session", 12) == {"x-griffin-state": "session; cached=12"}


# --- what becomes of fields ---

ENDPOINTS = {
    "chat": (policy.CHAT, ChatBody, chat_create_params.CompletionCreateParamsBase),
    "completion": (policy.COMPLETION, CompletionBody, completion_create_params.CompletionCreateParamsBase),
    "response": (policy.RESPONSE, ResponseBody, response_create_params.ResponseCreateParamsBase),
}


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_every_field_of_the_official_client_is_in_exactly_one_table(kind):
    tables, body, params = ENDPOINTS[kind]
    used = set(body.__struct_encode_fields__)
    assert not used & (tables.ignored | set(tables.refused)) and not tables.ignored & set(tables.refused)
    official = set(params.__annotations__) | {"stream"}
    assert official <= used | tables.ignored | set(tables.refused)


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_refused_fields_are_refused_by_name_and_harmless_values_of_them_are_not(kind):
    tables, body, _ = ENDPOINTS[kind]
    for place, refusal in tables.refused.items():
        if "[]" in place or "." in place:
            continue
        error = refused(kind, **{place: "something"})
        assert (error.code, error.param) == ("unsupported_parameter", place) and refusal.why in error.message
        for value in (*refusal.harmless, None):
            assert parse(kind, **{place: value}).ignored == (), f"{place}={value!r}"
    assert shape_of(body).fields is not None


def test_places_in_the_tables_exist():
    """A place inside a body whose parent no Struct has would never be met."""
    for tables, body, _ in ENDPOINTS.values():
        for place in tables.ignored | set(tables.refused):
            shape = shape_of(body)
            for step in place.split(".")[:-1]:
                shape = (shape.fields or {})[step.removesuffix("[]")]
                shape = shape.items if step.endswith("[]") else shape
                assert shape is not None, place
            assert place.split(".")[-1] not in (shape.fields or {}), place


def test_harmless_fields_are_accepted_in_silence_and_unknown_ones_named():
    for kind, (tables, _, _) in ENDPOINTS.items():
        for place in tables.ignored:
            if "[]" not in place and "." not in place:
                assert parse(kind, **{place: "something"}).ignored == ()
    message = {"role": "user", "content": [{"type": "text", "text": "x", "hue": 1}], "mood": "good"}
    asked = parse("chat", messages=[message, message], top_b=1, user="u")
    assert asked.ignored == ("messages[].content[].hue", "messages[].mood", "top_b")
    assert parse("response", include=["reasoning.encrypted_content"]).ignored == ("include[]",)


def test_the_header_that_names_them_is_bounded_and_clean():
    names = (*(f"field{n}\r\nx: y" for n in range(40)), "z" * 1000)
    header = p.ignored_header(names)["x-griffin-ignored"]
    assert header.isprintable() and header.isascii() and len(header) < 1200 and "and 25 more" in header
    assert p.ignored_header(()) == {}


def test_template_arguments():
    assert parse("chat", chat_template_kwargs={"enable_thinking": False}).ignored == ()
    assert refused("chat", chat_template_kwargs={"x": 1}).param == "chat_template_kwargs"


# --- what is wrong ---

WRONG = [
    ("chat", {"messages": []}, "messages"),
    ("chat", {"messages": "hello"}, "messages"),
    ("chat", {"messages": [5]}, "messages[0]"),
    ("chat", {"messages": [*USER, {"role": "owl", "content": "x"}]}, "messages[1].role"),
    ("chat", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("chat", {"messages": [{"content": "x"}]}, "messages[0].role"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
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
    ("chat", {"max_tokens": 10**9}, "max_tokens"),
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
    ("chat", {"tools": [{"type": "web_search"}]}, None),
    ("chat", {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ("chat", {"tools": [{"type": "function", "function": {"name": "a"}}] * 2}, "tools[1].function.name"),
    ("chat", {"tool_choice": "required"}, "tool_choice"),
    ("chat", {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
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
    ("response", {"input": [{"type": "item_reference"}]}, "input[0].type"),
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
        refused("chat", n=99).message == "n is 99; this server takes at most 16 (raise it with --max-choices)"
    )
    assert refused("chat", temperature="hot").message == "temperature is 'hot'; expected float | null"
    assert refused("chat", tool_choice="x").message == (
        "tool_choice is 'x'; allowed are any, auto, none, required"
    )
    assert refused("chat", session_id="a/b").message == (
        "session_id is 'a/b'; expected a letter or digit and after it at most 127 letters, digits, dots, "
        "dashes and underscores"
    )
    assert refused("detokenize", tokens=[1, 1000]).message == (
        "tokens[1] is token 1000; the vocabulary has ids 0 to 999"
    )


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        ("chat", {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].image_url"),
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
        (b"{", "not valid JSON"),
        (b"[]", "the body is a list of 0; send a JSON object"),
        (b'{"messages": NaN}', "not valid JSON"),
        (b'{"messages": [], "temperature": Infinity}', "not valid JSON"),
        (b'{"messages": [], "other": -1e999}', "a number in the body is out of range"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}', "temperature is out of"),
        (b'{"messages": "\\ud800"}', "half a surrogate pair"),
        (b'{"messages": "\xff"}', "not UTF-8"),
        (b'{"messages":' * 5000, "nested too deeply"),
        (b'{"messages":' + b"[" * 5000, "nested too deeply"),
        (b'{"messages": ' + b"1" * 10_000 + b"}", "out of range"),
    ],
)
def test_bodies_that_are_no_json_object(body, says):
    with pytest.raises(ApiError) as caught:
        p.parse_chat(body, LIMITS)
    assert caught.value.status == 400 and says in caught.value.message


def test_a_large_body_is_refused_before_it_is_read():
    with pytest.raises(ApiError) as caught:
        p.parse_chat(b"x" * 101, Limits(max_body_bytes=100))
    assert caught.value.status == 413 and "has 101 bytes; this server accepts 100" in caught.value.message


def test_a_small_body_cannot_ask_for_much_memory():
    limits = Limits(max_json_values=1000)
    for body in (b"[{}]" * 300, b"1," * 2000, b'"x",' * 2000):
        with pytest.raises(ApiError) as caught:
            p.parse_chat(b'{"x": [' + body + b"1]}", limits)
        assert caught.value.status == 413, body[:8]
    # Brackets and commas in a text are text.
    text = 'a "quoted" [{,\\' * 2000
    assert parse("chat", limits, messages=[{"role": "user", "content": text}]).messages[0].content == text


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
        ("chat", {"max_tokens": 4}),
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


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "²"}, {"limit": "-1"}])
def test_pages(query):
    with pytest.raises(ApiError, match="limit is"):
        p.parse_page(query)
    with pytest.raises(ApiError, match="allowed are asc, desc"):
        p.parse_page({"order": "up"})
    with pytest.raises(ApiError, match="after is"):
        p.parse_page({"after": ""})


def test_types_of_a_request_are_what_they_say():
    """A frozen request holds what its annotations promise, whatever the body left out."""
    for kind in ("chat", "completion", "response"):
        asked = parse(kind)
        hints = get_type_hints(type(asked))
        for name, hint in hints.items():
            if hint in (bool, int, str):
                assert type(getattr(asked, name)) is hint, name
