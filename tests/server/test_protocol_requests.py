"""Bodies to requests: what is read, and what is passed over."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from griffin.sampling import SamplingParams
from griffin.server import protocol as p
from griffin.server.endpoints.chat.body import ChatBody
from griffin.server.endpoints.sessions.body import parse_session_create
from griffin.server.errors import ApiError
from griffin.server.protocol.shape import shape_of
from tests.support.request_bodies import ENDPOINTS, LIMITS, SCHEMA, USER, parse, refused


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
    parts = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "cache_control": {"type": "x"}},
    ]
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
    without = parse("chat", tool_choice="auto")
    assert (without.tools, without.tool_choice) == (None, p.ToolChoice("auto"))
    assert parse("chat", tools=[]).tools == ()


def test_a_later_part_of_a_conversation():
    said = [p.Message("system", "s"), p.Message("user", "u")]
    assert p.turns(said, first=False) == [{"role": "user", "content": "s\n\nu"}]


def test_formats():
    wrapped = {
        "type": "json_schema",
        "json_schema": {"name": "owl", "schema": SCHEMA, "strict": True},
    }
    assert parse("chat", response_format=wrapped).format == p.JsonFormat(
        SCHEMA, "owl", True, "response_format.json_schema.schema"
    )
    assert parse("chat", response_format={"type": "json_object"}).format == p.JsonFormat()
    assert parse("chat", response_format={"type": "text"}).format is None
    flat = {"format": {"type": "json_schema", "name": "owl", "schema": SCHEMA}, "verbosity": "low"}
    asked = parse("response", text=flat)
    assert asked.format == p.JsonFormat(SCHEMA, "owl", place="text.format.schema")
    assert asked.ignored == ()


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
                    {
                        "type": "output_text",
                        "text": "let me look",
                        "annotations": [],
                        "logprobs": [],
                    }
                ],
            },
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "f",
                "arguments": "{}",
                "id": "fc_1",
            },
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
    assert asked.instructions == "be brief"
    assert asked.input == (
        p.Message("user", "hi"),
        p.Message("assistant", "let me look", tool_calls=calls),
        p.Message("tool", "one", tool_call_id="c1"),
        p.Message("tool", "two", tool_call_id="c2"),
    )
    assert asked.ignored == () and asked.store is True


def test_sessions_and_states():
    made, ignored = parse_session_create(b"", LIMITS)
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
    headers = {
        "x-griffin-session": "own",
        "x-session-id": "ses_1",
        "x-openwebui-chat-id": "web",
        "x-conversation-id": "conv",
    }
    everything = {"session_id": "body", "previous_response_id": "resp_1", "conversation": "talk"}
    expected = [
        p.Identity("session", "body", "session_id"),
        p.Identity("response", "resp_1", "previous_response_id"),
        p.Identity("conversation", "talk", "conversation"),
        p.Identity("session", "own", "x-griffin-session"),
        p.Identity("hint", "ses_1", "x-session-id"),
        p.Identity("hint", "web", "x-openwebui-chat-id"),
        p.Identity("hint", "conv", "x-conversation-id"),
        p.Identity("none"),
    ]
    for identity in expected:
        assert p.identify(headers, **everything) == identity
        assert identity.named == (identity.kind not in ("hint", "none"))
        everything.pop(identity.source, None)
        headers.pop(identity.source, None)


@pytest.mark.parametrize("header", ["x-session-id", "x-openwebui-chat-id", "x-conversation-id"])
def test_a_hint_refuses_nothing(header):
    chat = parse("chat")
    # open-webui's chats that must not be kept, and anything that could be a path, name no session.
    for value in ("local:abc", "../../etc", "", "a" * 200):
        assert chat.identity({header: value}).kind == "none"
    assert parse("chat", n=3).identity({header: "web"}) == p.Identity("hint", "web", header)
    both = parse("chat", prompt_cache_key="key", user="somebody")
    assert both.identity({}) == p.Identity("none")


def test_what_names_a_session_is_held_to_the_rule_for_names():
    with pytest.raises(ApiError, match="X-Griffin-Session is no name"):
        parse("chat").identity({"x-griffin-session": "../../etc"})
    with pytest.raises(ApiError, match="3 answers were asked for"):
        parse("chat", n=3).identity({"x-griffin-session": "own"})
    with pytest.raises(ApiError, match="2 answers were asked for"):
        parse("completion", prompt=["a", "b"], session_id="s").identity({})
    assert p.state_header("session", 12) == {"x-griffin-state": "session; cached=12"}


# --- what becomes of fields ---


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_every_field_of_the_official_client_is_in_exactly_one_table(kind):
    tables, body, params = ENDPOINTS[kind]
    used = set(body.__struct_encode_fields__)
    assert not used & (tables.ignored | set(tables.refused)) and not tables.ignored & set(
        tables.refused
    )
    official = set(params.__annotations__) | {"stream"}
    assert official <= used | tables.ignored | set(tables.refused)


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_refused_fields_are_refused_by_name_and_harmless_values_of_them_are_not(kind):
    tables, body, _ = ENDPOINTS[kind]
    for place, refusal in tables.refused.items():
        if "[]" in place or "." in place:
            continue
        error = refused(kind, **{place: "something"})
        assert (error.code, error.param) == (
            "unsupported_parameter",
            place,
        ) and refusal.why in error.message
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
    assert (
        header.isprintable() and header.isascii() and len(header) < 1200 and "and 25 more" in header
    )
    assert p.ignored_header(()) == {}


def test_template_arguments():
    assert parse("chat", chat_template_kwargs={"enable_thinking": False}).ignored == ()
    assert refused("chat", chat_template_kwargs={"x": 1}).param == "chat_template_kwargs"


def test_types_of_a_request_are_what_they_say():
    """A frozen request holds what its annotations promise, whatever the body left out."""
    for kind in ("chat", "completion", "response"):
        asked = parse(kind)
        hints = get_type_hints(type(asked))
        for name, hint in hints.items():
            if hint in (bool, int, str):
                assert type(getattr(asked, name)) is hint, name
