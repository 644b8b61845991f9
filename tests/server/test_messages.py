"""/v1/messages on the wire: blocks, events, refusals in Anthropic's form, answers as a chat's."""

from __future__ import annotations

import json

import pytest

from griffin.server.endpoints.messages.reply import MessageFailure
from griffin.server.errors import CASES, ApiError
from tests.server.http.test_openapi import validator
from tests.support.live_server import ALICE, BOB, NAME, endless, guarded
from tests.support.tool_calls import TALLY, valid

HI = [{"role": "user", "content": "Hi there"}]
BODY = {"model": NAME, "messages": HI, "max_tokens": 8, "seed": 1}
USE = [{"name": "look", "input_schema": TALLY}, {"name": "look_up"}]


def ask(http, **fields):
    answer = http.post("/v1/messages", json=BODY | fields)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    validator("AssistantMessage").validate(made)
    return made


def events(http, **fields):
    """Return a stream's events; each is named as it is typed."""
    with http.stream("POST", "/v1/messages", json=BODY | fields | {"stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        answer.read()
    found = []
    for event in answer.text.split("\n\n"):
        if event.startswith("event: "):
            name, data = event.removeprefix("event: ").split("\ndata: ")
            found.append(json.loads(data))
            assert found[-1]["type"] == name
    return found


def together(found):
    """Put events together, as a client does, and hold them to their order."""
    made, *rest = found
    assert made["type"] == "message_start" and rest.pop(0) == {"type": "ping"}
    message, texts = made["message"], {}
    for event in rest[:-2]:
        at = event["index"]
        if event["type"] == "content_block_start":
            assert at == len(message["content"]) and not texts.get(at - 1)
            message["content"].append(event["content_block"])
            texts[at] = []
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            assert (delta["type"] == "text_delta") == (message["content"][at]["type"] == "text")
            texts[at].append(delta.get("text") or delta.get("partial_json"))
        else:
            assert event == {"type": "content_block_stop", "index": at}
            block, text = message["content"][at], "".join(texts.pop(at))
            if block["type"] == "text":
                block["text"] = text
            elif text:
                block["input"] = json.loads(text)
    assert not texts and [event["type"] for event in rest[-2:]] == ["message_delta", "message_stop"]
    return message | rest[-2]["delta"] | {"usage": rest[-2]["usage"]}


def said(message):
    """Return what does not change from one time to the next."""
    content = [{k: v for k, v in block.items() if k != "id"} for block in message["content"]]
    return content, message["stop_reason"], message["stop_sequence"]


def test_the_answer_is_a_chats(http, llm):
    alone = llm.chat(HI, seed=1, max_tokens=8)
    made = ask(http)
    assert said(made) == ([{"type": "text", "text": alone.text}], "max_tokens", None)
    used = made["usage"]
    assert used["output_tokens"] == 8 and used["cache_creation_input_tokens"] == 0
    assert used["input_tokens"] + used["cache_read_input_tokens"] == alone.prompt_tokens
    assert made["role"] == "assistant" and made["id"].startswith("msg_") and made["model"] == NAME
    assert made["griffin"]["seeds"] == [1]


def test_what_was_read_before_is_told_apart(http):
    body = {"messages": [{"role": "user", "content": "A long beginning, read once. " * 20}]}
    first, second = ask(http, **body)["usage"], ask(http, **body)["usage"]
    assert second["cache_read_input_tokens"] > first["cache_read_input_tokens"]
    assert sum(first.values()) == sum(second.values())


def test_events_say_the_same(http):
    found = events(http)
    made = together(found)
    assert said(made) == said(ask(http))
    start = found[0]["message"]
    assert start["stop_reason"] is None and start["usage"]["output_tokens"] < 8
    assert start["usage"]["input_tokens"] + start["usage"]["cache_read_input_tokens"] > 0
    assert made["usage"]["output_tokens"] == 8


def test_a_stop_sequence_is_told(http):
    whole = ask(http, max_tokens=24)["content"][0]["text"]
    stop = whole[6:8]
    for made in (
        ask(http, max_tokens=24, stop_sequences=["never said", stop]),
        together(events(http, max_tokens=24, stop_sequences=["never said", stop])),
    ):
        text = whole[: whole.index(stop)]
        assert said(made) == ([{"type": "text", "text": text}], "stop_sequence", stop)


def test_an_answer_that_ends_by_itself(http, llm):
    bias = {str(id): 100 for id in llm.stop_ids}
    for made in (ask(http, logit_bias=bias), together(events(http, logit_bias=bias))):
        assert said(made) == ([], "end_turn", None)


def test_a_conversation_reads_as_the_same_chat(http, llm):
    """System text in blocks, calls and results in blocks, and the same ids as OpenAI's form."""
    blocks = [
        {"role": "user", "content": [{"type": "text", "text": "Where is it?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {"deep": True}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "It is here."},
                {"type": "text", "text": "So?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]
    call = {"name": "look", "arguments": '{"deep":true}'}
    chat = [
        {"role": "system", "content": "One.\n\nTwo."},
        {"role": "user", "content": "Where is it?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": "c1", "type": "function", "function": call}],
        },
        {"role": "tool", "content": "It is here.", "tool_call_id": "c1"},
        {"role": "user", "content": "So?"},
    ]
    system = [
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "Two."},
    ]
    made = ask(http, messages=blocks, system=system)
    theirs = http.post(
        "/v1/chat/completions", json={"messages": chat, "max_tokens": 8, "seed": 1}
    ).json()
    used = made["usage"]
    tokens = used["input_tokens"] + used["cache_read_input_tokens"]
    assert tokens == theirs["usage"]["prompt_tokens"]
    assert made["content"][0]["text"] == theirs["choices"][0]["message"]["content"]
    counted = http.post("/v1/messages/count_tokens", json={"messages": blocks, "system": system})
    assert counted.json() == {"input_tokens": tokens}


def test_a_failed_call_is_told_as_one(http):
    def count(**result):
        block = {"type": "tool_result", "tool_use_id": "c", **result}
        body = {"messages": [{"role": "user", "content": [block]}]}
        return http.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]

    parts = [{"type": "text", "text": "gone"}]
    assert count(content="gone") == count(content=parts) == count(content="gone", is_error=False)
    assert count(content="gone", is_error=True) > count(content="gone") > count()


@pytest.mark.parametrize(
    "choice", [{"type": "any"}, {"type": "any", "disable_parallel_tool_use": True}]
)
def test_tools(http, choice):
    fields = {"tools": USE, "tool_choice": choice, "max_tokens": 400}
    made = ask(http, **fields)
    content, reason, _ = said(made)
    assert reason == "tool_use" and {block["type"] for block in content} == {"tool_use"}
    assert all(valid(block["name"], json.dumps(block["input"])) for block in content)
    assert len(content) == 1 or "disable_parallel_tool_use" not in choice
    assert all(block["id"].startswith("toolu_") for block in made["content"])
    assert said(together(events(http, **fields))) == said(made)


def test_the_tool_that_must_be_used_and_none(http):
    chosen = {"type": "tool", "name": "look_up"}
    content, reason, _ = said(ask(http, tools=USE, tool_choice=chosen, max_tokens=400))
    assert [block["name"] for block in content] == ["look_up"] and reason == "tool_use"
    content, reason, _ = said(ask(http, tools=USE, tool_choice={"type": "none"}))
    assert [block["type"] for block in content] == ["text"] and reason == "max_tokens"


def test_text_before_a_call(http, saying):
    saying("Let me see.\n<tool_call> no, I would rather not")
    fields = {"tools": USE, "max_tokens": 400, "tool_choice": {"type": "auto"}}
    content, reason, _ = said(made := ask(http, **fields))
    assert content[0] == {"type": "text", "text": "Let me see."} and reason == "tool_use"
    assert [block["type"] for block in content[1:]] == ["tool_use"] * (len(content) - 1)
    assert said(together(events(http, **fields))) == said(made)


def test_a_call_that_was_cut_is_no_use_of_a_tool(http):
    fields = {"tools": USE, "tool_choice": {"type": "tool", "name": "look"}, "max_tokens": 20}
    content, reason, _ = said(ask(http, **fields))
    assert reason == "max_tokens" and all(block["input"] == {} for block in content)
    found = events(http, **fields)
    assert found[-2]["delta"]["stop_reason"] == "max_tokens"
    assert [e["type"] for e in found].count("content_block_stop") == len(content)


def test_an_answer_by_a_schema(http):
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    form = {"format": {"type": "json_schema", "schema": schema}}
    made = ask(http, output_config=form, max_tokens=200)
    assert json.loads(made["content"][0]["text"])["a"] in (1, 2)


def test_an_answer_goes_on_from_how_it_begins(http):
    begun = [*HI, {"role": "assistant", "content": [{"type": "text", "text": "The answer is"}]}]
    theirs = {"messages": [*HI, {"role": "assistant", "content": "The answer is"}]}
    chat = http.post("/v1/chat/completions", json=theirs | {"max_tokens": 8, "seed": 1}).json()
    made = ask(http, messages=begun)
    assert made["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert said(together(events(http, messages=begun))) == said(made) != said(ask(http))
    used = made["usage"]
    counted = http.post("/v1/messages/count_tokens", json={"messages": begun}).json()
    assert counted["input_tokens"] == used["input_tokens"] + used["cache_read_input_tokens"]


def test_a_session_goes_on(http):
    headers = {"x-griffin-session": "told"}
    first = http.post("/v1/messages", json=BODY, headers=headers)
    assert first.json()["griffin"]["session"] == "told"
    second = http.post("/v1/messages", json=BODY, headers=headers)
    assert second.headers["x-griffin-state"].startswith("session; cached=")
    assert len(http.get("/v1/sessions/told/turns").json()["data"]) == 2


def test_harmless_fields_change_nothing(http):
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a-2024,b-2025"}
    fields = {
        "metadata": {"user_id": "u"},
        "cache_control": {"type": "ephemeral"},
        "service_tier": "auto",
        "thinking": {"type": "disabled"},
    }
    answer = http.post("/v1/messages?beta=true", json=BODY | fields, headers=headers)
    assert said(answer.json()) == said(ask(http)) and "x-griffin-ignored" not in answer.headers
    thinks = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5}
    answer = http.post("/v1/messages", json=BODY | thinks, headers={"x-request-id": "mine"})
    assert answer.headers["x-griffin-ignored"] == "thinking"
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("fields", "status", "kind", "words"),
    [
        ({"model": "other"}, 404, "not_found_error", "there is no model 'other'"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"temperature": -1}, 400, "invalid_request_error", "temperature is -1"),
        ({"state": "gone"}, 404, "not_found_error", "gone"),
        ({"messages": [*HI, {"role": "tool", "content": "x"}]}, 400, None, "messages[1].role"),
    ],
)
def test_refusals(http, fields, status, kind, words):
    answer = http.post("/v1/messages", json=BODY | fields)
    made = answer.json()
    validator("MessageFailure").validate(made)
    assert answer.status_code == status and made["type"] == "error"
    assert made["error"]["type"] == kind or kind is None
    assert words in made["error"]["message"]
    assert made["request_id"] == answer.headers["x-request-id"] == answer.headers["request-id"]
    assert http.post("/v1/messages", json=BODY | fields | {"stream": True}).json() | {
        "request_id": ""
    } == made | {"request_id": ""}


def test_refusals_before_the_endpoint_have_its_form(llm, tmp_path):
    with guarded(llm, tmp_path) as live, live.http() as http:
        for sent in (
            {},
            {"x-api-key": "x"},
            {"x-api-key": ALICE, "authorization": f"Bearer {BOB}"},
        ):
            answer = http.post("/v1/messages", json=BODY, headers=sent)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"
        key = {"x-api-key": ALICE}
        assert http.post("/v1/messages", json=BODY, headers=key).status_code == 200
        for path, status in (("/v1/messages/batches", 404), ("/v1/messages", 405)):
            answer = http.get(path, headers=key)
            assert answer.status_code == status and answer.json()["type"] == "error"
        plain = http.post(
            "/v1/messages", content="{}", headers=key | {"content-type": "text/plain"}
        )
        assert plain.status_code == 415 and plain.json()["type"] == "error"
        assert http.get("/v1/models", headers=key | {"host": "x.example"}).json()["error"]["code"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code or "bug")
def test_every_failure_has_a_type_of_theirs(case):
    kind = MessageFailure.of(ApiError(case, "why"), "req_1").error.type
    assert kind in {
        *("invalid_request_error", "authentication_error", "permission_error", "not_found_error"),
        *("rate_limit_error", "timeout_error", "api_error", "overloaded_error", "conflict_error"),
        "request_too_large",
    }
    assert (kind == "invalid_request_error") <= (400 <= case.status < 500)


def test_a_failure_in_the_middle_is_an_event(live, llm):
    body = BODY | endless(llm) | {"max_tokens": 10_000, "stream": True}
    with live.http() as http, http.stream("POST", "/v1/messages", json=body) as answer:
        lines = answer.iter_lines()
        while "content_block_delta" not in next(lines):
            pass
        live.service.bridge.runs.copy().pop().cancel("the server stopped")
        rest = "\n".join(lines)
    assert rest.strip().split("event: ")[-1].startswith("error\ndata: ")
    failed = json.loads(rest.rpartition("data: ")[2])
    assert failed["error"] == {"type": "overloaded_error", "message": "the server stopped"}
    assert live.idle()
