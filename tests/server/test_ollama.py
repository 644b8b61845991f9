"""/api on the wire: lines of JSON, options, tools and refusals in Ollama's form, answers as a
chat's."""

from __future__ import annotations

import json
from datetime import datetime

import msgspec
import pytest

from griffin.server.endpoints.ollama.reply import called as told_call
from griffin.server.protocol import ToolCall
from griffin.server.settings import Settings
from tests.server.http.test_openapi import validator
from tests.support.live_server import ALICE, NAME, endless, guarded, serving
from tests.support.tool_calls import TALLY, TOOLS, valid

HI = [{"role": "user", "content": "Hi there"}]
OPTIONS = {"num_predict": 8, "seed": 1}
CHAT = {"model": NAME, "messages": HI, "options": OPTIONS}
COSTS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def post(http, path, **fields):
    answer = http.post(path, json=fields)
    assert answer.status_code == 200, answer.text
    return answer


def whole(http, path="/api/chat", **fields):
    answer = post(http, path, **fields, stream=False)
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def lines(http, path="/api/chat", **fields):
    """Return a stream's lines; only the last one is done, and has what the answer cost."""
    answer = post(http, path, **fields)
    assert answer.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in answer.text.splitlines()]
    kind = validator("OllamaChat" if path == "/api/chat" else "OllamaText")
    for line in found:
        kind.validate(line)
        assert line["model"] == NAME and datetime.fromisoformat(line["created_at"])
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    assert all("done_reason" not in line and "eval_count" not in line for line in found[:-1])
    return found


def content(found):
    return "".join(line["message"]["content"] for line in found)


def test_the_answer_is_a_chats(http, llm):
    alone = llm.chat(HI, seed=1, max_tokens=8)
    made, found = whole(http, **CHAT), lines(http, **CHAT)
    assert made["message"] == {"role": "assistant", "content": alone.text}
    assert content(found) == alone.text and found[-1]["message"]["content"] == ""
    for last in (made, found[-1]):
        assert last["done"] is True and last["done_reason"] == "length"
        assert (last["prompt_eval_count"], last["eval_count"]) == (alone.prompt_tokens, 8)
        assert all(isinstance(last[name], int) and last[name] >= 0 for name in COSTS)
        parts = sum(last[name] for name in COSTS[1:])
        assert 0 < parts <= last["total_duration"] + 3 < 60e9
        assert last["griffin"]["seeds"] == [1]


def test_options_are_those_of_a_chat(http):
    options = {
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.05,
        "seed": 3,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
    }
    theirs = options | {"repetition_penalty": 1.3, "max_tokens": 12, "messages": HI}
    chat = http.post("/v1/chat/completions", json=theirs).json()
    ours = options | {"repeat_penalty": 1.3, "num_predict": 12, "num_ctx": 2048, "mirostat": 0}
    made = post(http, "/api/chat", messages=HI, options=ours, stream=False)
    assert made.json()["message"]["content"] == chat["choices"][0]["message"]["content"]
    assert "x-griffin-ignored" not in made.headers
    named = post(http, "/api/chat", messages=HI, options=OPTIONS | {"owl": 1}, think=True)
    assert named.headers["x-griffin-ignored"] == "options.owl, think"


def test_a_stop_string_and_no_seed(http):
    text = whole(http, **CHAT | {"options": OPTIONS | {"num_predict": 24}})["message"]["content"]
    stop = text[6:8]
    made = whole(http, **CHAT | {"options": OPTIONS | {"num_predict": 24, "stop": ["x", stop]}})
    assert made["message"]["content"] == text[: text.index(stop)] and made["done_reason"] == "stop"
    seeds = {
        whole(http, **CHAT | {"options": {"seed": -1, "num_predict": 1}})["griffin"]["seeds"][0]
        for _ in range(3)
    }
    assert len(seeds) == 3


@pytest.mark.parametrize("most", [-1, -2, 0])
def test_as_many_tokens_as_the_server_gives(llm, tmp_path, most):
    limits = {"max_tokens": 6, "default_max_tokens": 3}
    with serving(llm, tmp_path, limits=limits) as live, live.http() as http:
        made = whole(http, messages=HI, options={"num_predict": most, "seed": 1})
        assert made["eval_count"] == 6 and whole(http, messages=HI)["eval_count"] == 3


def test_generate(http, llm):
    alone = llm.chat([{"role": "system", "content": "S"}, *HI], seed=1, max_tokens=8).text
    body = {"model": NAME, "prompt": "Hi there", "system": "S", "options": OPTIONS}
    assert whole(http, "/api/generate", **body)["response"] == alone
    found = lines(http, "/api/generate", **body)
    assert "".join(line["response"] for line in found) == alone
    raw = {"model": NAME, "prompt": "def f(", "raw": True, "options": OPTIONS}
    alone = llm.generate("def f(", seed=1, max_tokens=8)
    made = whole(http, "/api/generate", **raw)
    assert made["response"] == alone.text and made["prompt_eval_count"] == alone.prompt_tokens
    found = lines(http, "/api/generate", **raw)
    assert "".join(line["response"] for line in found) == alone.text


def test_a_base_model_continues_what_it_is_given(http, live, llm, monkeypatch):
    monkeypatch.setattr(type(live.service.llm), "chat_format", property(_no_chat))
    body = {"model": NAME, "prompt": "Hi", "system": "S", "options": OPTIONS}
    made = whole(http, "/api/generate", **body)
    assert made["response"] == llm.generate("S\n\nHi", seed=1, max_tokens=8).text
    assert post(http, "/api/show", model=NAME).json()["capabilities"] == ["completion"]
    assert "no chat model" in http.post("/api/chat", json=CHAT).json()["error"]


def _no_chat(llm):
    raise ValueError("it is no chat model")


def test_who_asks_for_nothing_is_told_that_the_model_is_there(http):
    for path, field in (("/api/chat", "message"), ("/api/generate", "response")):
        made = whole(http, path, model=NAME)
        assert made["done"] is True and made["done_reason"] == "load" and field in made
        assert post(http, path, model=NAME, keep_alive=0).json()["done_reason"] == "unload"
        assert http.post(path, json={"model": "other"}).status_code == 404


@pytest.mark.parametrize("name", [NAME, f"{NAME}:latest", None])
def test_a_model_by_its_tag(http, name):
    made = whole(http, **CHAT | {"model": name})
    assert made["model"] == (name or NAME)


def test_the_model_is_described(http, llm):
    (model,) = http.get("/api/tags").json()["models"]
    validator("OllamaModels").validate({"models": [model]})
    assert model["name"] == model["model"] == f"{NAME}:latest"
    assert model["size"] == sum(p.numel() * p.element_size() for p in llm.model.parameters())
    assert int(model["digest"], 16) and model["details"]["quantization_level"] == "F32"
    assert model["details"]["parameter_size"] == "148.3K"
    running = http.get("/api/ps").json()
    validator("RunningModels").validate(running)
    assert running["models"][0] | model == running["models"][0]
    for asked in ({"model": NAME}, {"name": f"{NAME}:latest"}):
        shown = post(http, "/api/show", **asked).json()
        validator("ModelDetails").validate(shown)
        assert shown["capabilities"] == ["completion", "tools"]
        family = shown["model_info"]["general.architecture"]
        assert shown["model_info"][f"{family}.context_length"] == 1 << 20
    assert http.post("/api/show", json={"model": "other"}).status_code == 404
    assert all(part.isdigit() for part in http.get("/api/version").json()["version"].split("."))


def test_formats(http):
    schema = TALLY
    made = whole(http, **CHAT | {"format": schema, "options": {"num_predict": 400, "seed": 1}})
    assert valid("look", made["message"]["content"])
    body = {"prompt": "Hi", "raw": True, "format": schema, "options": {"num_predict": 400}}
    assert valid("look", whole(http, "/api/generate", **body)["response"])
    assert whole(http, **CHAT | {"format": "json"})["message"]["content"].startswith("{")
    assert whole(http, **CHAT | {"format": ""}) and whole(http, **CHAT | {"format": None})


def called(found):
    return [
        (call["function"]["name"], json.dumps(call["function"]["arguments"]))
        for line in found
        for call in line["message"].get("tool_calls", ())
    ]


def test_tools(http, saying):
    saying('Let me see.\n<tool_call>{"name": "look_up", "arguments": {}}</tool_call>\n')
    body = CHAT | {"tools": TOOLS, "options": {"num_predict": 400, "seed": 1}}
    made, found = whole(http, **body), lines(http, **body)
    calls = called([made])
    assert made["message"]["content"] == content(found) == "Let me see."
    assert calls[0] == ("look_up", "{}") and all(valid(*call) for call in calls)
    assert called(found) == calls and made["done_reason"] == "stop"


def test_no_character_ends_a_line_but_the_last(http, saying):
    """Ollama's own client in Python parts a stream with splitlines."""
    saying("one\x85two\u2028three\u2029four\n")
    body = CHAT | {"options": {"num_predict": 60, "seed": 1}}
    assert content(lines(http, **body)).startswith("one\x85two\u2028three\u2029four")


@pytest.mark.parametrize("inner", ["[" * 3000 + "\n1" + "]" * 3000, '"\\ud800"'])
def test_a_call_is_told_whatever_is_in_it(inner):
    arguments = f'{{"a": {inner}}}'
    told = msgspec.json.encode(told_call(ToolCall("id", "f", arguments))).decode()
    assert arguments.replace("\n", " ") in told


def test_a_call_that_was_cut_is_none(http, saying):
    saying('<tool_call>{"name": "look", "arguments": {"at"')
    body = CHAT | {"tools": TOOLS, "options": {"num_predict": 36, "seed": 1}}
    made, found = whole(http, **body), lines(http, **body)
    assert called([made]) == called(found) == [] and made["done_reason"] == "length"


def test_calls_and_results_are_read_as_a_chats(http):
    call = {"function": {"name": "look", "arguments": {"deep": True}}}
    said = [
        *HI,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "It is here.", "tool_name": "look"},
    ]
    theirs = {"name": "look", "arguments": '{"deep":true}'}
    chat = [
        *HI,
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": theirs}]},
        {"role": "tool", "content": "It is here.", "tool_call_id": "look"},
    ]
    body = {"messages": chat, "max_tokens": 8, "seed": 1}
    made = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert whole(http, **CHAT | {"messages": said})["message"]["content"] == made


def test_an_answer_goes_on_from_how_it_begins(http):
    said = [*HI, {"role": "assistant", "content": "The answer is"}]
    chat = http.post("/v1/chat/completions", json={"messages": said, "max_tokens": 8, "seed": 1})
    made = whole(http, **CHAT | {"messages": said})["message"]["content"]
    assert made == chat.json()["choices"][0]["message"]["content"]


def test_log_probabilities(http, llm):
    alone = llm.chat(HI, seed=1, max_tokens=8, logprobs=2)
    asked = CHAT | {"logprobs": True, "top_logprobs": 2}
    told = [token for line in lines(http, **asked) for token in line.get("logprobs", ())]
    assert told == whole(http, **asked)["logprobs"]
    assert [token["logprob"] for token in told] == list(alone.logprobs)
    assert all(len(token["top_logprobs"]) == 2 for token in told)


def test_vectors(http):
    theirs = http.post("/v1/embeddings", json={"input": ["owl", "a mouse"]}).json()
    made = post(http, "/api/embed", model=f"{NAME}:latest", input=["owl", "a mouse"]).json()
    validator("OllamaVectors").validate(made)
    assert made["embeddings"] == [one["embedding"] for one in theirs["data"]]
    assert made["prompt_eval_count"] == theirs["usage"]["prompt_tokens"]
    assert made["model"] == f"{NAME}:latest" and made["total_duration"] > 0
    first = post(http, "/api/embed", input="owl", dimensions=3).json()["embeddings"]
    assert len(first) == 1 and len(first[0]) == 3
    old = post(http, "/api/embeddings", prompt="owl").json()
    assert old == {"embedding": made["embeddings"][0]}


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("/api/chat", {"model": "other", "messages": HI}, 404, "there is no model 'other'"),
        ("/api/chat", {"messages": HI, "options": {"mirostat": 2}}, 400, "options.mirostat"),
        ("/api/chat", {"messages": HI, "format": "xml"}, 400, "format is 'xml'"),
        ("/api/generate", {"prompt": "x", "images": ["aGk="]}, 400, "images"),
        ("/api/generate", {"prompt": "x", "context": [1, 2]}, 400, "/api/chat"),
        ("/api/pull", {"model": "x"}, 404, "griffin pull"),
        ("/api/create", {"model": "x"}, 404, "griffin serve"),
        ("/api/owl", {}, 404, "openapi.json"),
    ],
)
def test_refusals(http, path, fields, status, words):
    answer = http.post(path, json=fields)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"] and words in answer.json()["error"]


def test_guards_stay(llm, tmp_path):
    """A page elsewhere can send a body without asking only if it says that it is no JSON."""
    with guarded(llm, tmp_path) as live, live.http() as http:
        key, body = {"authorization": f"Bearer {ALICE}"}, json.dumps(CHAT)
        assert http.post("/api/chat", json=CHAT).json()["error"].startswith("no API key")
        for kind in ("text/plain", "application/x-www-form-urlencoded", None):
            headers = key | ({"content-type": kind} if kind else {})
            answer = http.post("/api/chat", content=body, headers=headers)
            assert answer.status_code == 415 and "application/json" in answer.json()["error"]
        foreign = http.post("/api/chat", json=CHAT, headers=key | {"origin": "https://x.example"})
        assert foreign.status_code == 403
        assert http.get("/api/tags", headers=key | {"host": "x.example"}).status_code == 403
        assert http.get("/api/tags").status_code == 401


def test_a_failure_in_the_middle_is_a_line(live, llm):
    body = CHAT | {"options": {"num_predict": 10_000, "stop": ["never said"], "temperature": 5}}
    with live.http() as http, http.stream("POST", "/api/chat", json=body) as answer:
        found = answer.iter_lines()
        first = json.loads(next(found))
        assert first["done"] is False
        live.service.bridge.runs.copy().pop().cancel("the server stopped")
        *_, last = found
    assert json.loads(last) == {"error": "the server stopped"} and live.idle()


def test_nothing_to_say_is_a_line_too(llm, tmp_path):
    settings = Settings(patience_seconds=0.01, keepalive_seconds=0.01)
    with serving(llm, tmp_path, slots=1, settings=settings) as live, live.http() as http:
        long = {"messages": HI, "max_tokens": 10_000, **endless(llm)}
        held = live.post("/v1/chat/completions", long)
        assert live.busy()
        with http.stream("POST", "/api/chat", json=CHAT) as answer:
            found = answer.iter_lines()
            waiting = json.loads(next(found))
            held.close()
            rest = [json.loads(line) for line in found]
        assert waiting["message"]["content"] == "" and waiting["done"] is False
        assert rest[-1]["done"] is True and content(rest)
