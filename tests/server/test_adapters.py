"""One base and several adapters behind one address, named as models: each as if it were alone."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import griffin
from griffin.adapters import LoraConfig
from griffin.server.build import build
from tests.support.live_server import CHAT, NAME, endless, serving
from tests.support.toy_adapters import write_adapter
from tests.support.toy_folder import write_toy
from tests.support.waiting import until

ADAPTERS = {
    "owl": LoraConfig(rank=3),
    "org/bat": LoraConfig(rank=4, targets=("up_proj", "q_proj", "linear_x")),
    "cat": LoraConfig(rank=1, rslora=True),
}
NAMES = [NAME, *ADAPTERS]
TEXT = "import json\n\ndef loads(text):\n    return json."


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of the toy and, by their names, of its adapters."""
    folder = tmp_path_factory.mktemp("model")
    adapters = {
        name: write_adapter(folder / f"lora-{seed}", config, seed)
        for seed, (name, config) in enumerate(ADAPTERS.items())
    }
    return write_toy(folder / "toy"), adapters


@pytest.fixture(scope="module")
def llm(folders):
    return griffin.load(folders[0], device="cpu", adapter=folders[1])


@pytest.fixture(scope="module")
def live(llm, folder, folders):
    roots = {NAME: "the/base"} | {name: place.name for name, place in folders[1].items()}
    with serving(llm, folder, roots=roots, aliases=["toy-too"]) as live:
        yield live


def bodies(llm, name):
    """Return requests of every kind that generates, for a model."""
    more = {"model": name, "max_tokens": 6, "seed": 3, **endless(llm)}
    said = {"messages": [{"role": "user", "content": TEXT}]}
    return {
        "/v1/chat/completions": said | more | {"logprobs": True, "top_logprobs": 3},
        "/v1/completions": {"prompt": [TEXT, "x"], "logprobs": 2, "echo": True, "n": 2} | more,
        "/v1/responses": {"model": name, "input": TEXT, "max_output_tokens": 6, "temperature": 0},
        "/v1/messages": said | {"model": name, "max_tokens": 6, "temperature": 0},
        "/v1/embeddings": {"input": TEXT, "model": name},
        "/api/chat": said
        | {"model": name, "stream": False, "options": {"num_predict": 6, "temperature": 0}},
    }


def told(answer):
    """Return what an answer says, without what differs from call to call."""
    for list_, fields in (
        ("choices", ("message", "text", "logprobs", "finish_reason")),
        ("data", ("embedding",)),
    ):
        if list_ in answer:
            return [[choice.get(field) for field in fields] for choice in answer[list_]]
    output = answer.get("output") or answer.get("content") or [answer.get("message")]
    return [one.get("content") or one.get("text") for one in output if one]


def test_each_in_one_batch_is_as_alone(llm, live, folders):
    """All of them at the same time, and to the bit: log-probabilities and vectors, too."""
    base, adapters = folders
    alone = {NAME: griffin.load(base, device="cpu")}
    alone |= {n: griffin.load(base, device="cpu", adapter={n: at}) for n, at in adapters.items()}
    wanted = {}
    for name, own in alone.items():
        with serving(own, cache_bytes=0) as single, single.http() as http:
            for path, body in bodies(llm, name).items():
                answer = http.post(path, json=body)
                assert answer.status_code == 200, answer.text
                wanted[name, path] = told(answer.json())
    with live.http() as http, ThreadPoolExecutor(12) as pool:

        def asked(name, path):
            answer = http.post(path, json=bodies(llm, name)[path])
            assert answer.status_code == 200, answer.text
            said = answer.json()
            assert said.get("model", name) == name
            return (name, path), told(said)

        for _ in range(2):  # and with beginnings that are known
            assert dict(pool.map(lambda each: asked(*each), wanted)) == wanted
    for path in bodies(llm, NAME):
        assert len({str(wanted[name, path]) for name in NAMES}) == len(NAMES), path


def test_prompts_that_one_has_read_are_unknown_to_the_others(llm):
    with serving(llm) as live, live.http() as http:
        for turn in range(2):
            for name in NAMES:
                body = {"model": name, "prompt": TEXT * 9, "max_tokens": 1}
                usage = http.post("/v1/completions", json=body).json()["usage"]
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                assert (cached > 0) == (turn == 1), (turn, name)


def test_they_are_listed_as_vllm_lists_them(http, client):
    listed = client.models.list().data
    assert [(one.id, one.root, one.parent) for one in listed] == [
        (NAME, "the/base", None),
        ("toy-too", "the/base", None),
        ("owl", "lora-0", NAME),
        ("org/bat", "lora-1", NAME),
        ("cat", "lora-2", NAME),
    ]
    assert client.models.retrieve("org/bat").parent == NAME
    tags = http.get("/api/tags").json()["models"]
    assert [(one["name"], one["details"]["parent_model"]) for one in tags][2:] == [
        ("owl:latest", NAME),
        ("org/bat:latest", NAME),
        ("cat:latest", NAME),
    ]
    digests = [one["digest"] for one in tags]
    assert digests[0] == digests[1] and len(set(digests)) == 4
    assert len(http.get("/api/ps").json()["models"]) == 4
    shown = http.post("/api/show", json={"model": "owl:latest"}).json()
    assert shown["details"]["parent_model"] == NAME
    owl = {**CHAT, "model": "owl"}
    by_tag = http.post("/v1/chat/completions", json=owl).json()["choices"]
    brief = {"model": "owl:latest", "stream": False, "options": {"num_predict": 4}}
    ollama = http.post("/api/chat", json=owl | brief).json()
    assert ollama["model"] == "owl:latest" and by_tag


def test_who_names_none_gets_the_base_and_an_unknown_name_a_404(client, http):
    given = http.post("/v1/chat/completions", json=CHAT).json()
    named = http.post("/v1/chat/completions", json={**CHAT, "model": NAME}).json()
    assert (given["model"], given["choices"]) == (NAME, named["choices"])
    with pytest.raises(openai.NotFoundError, match=r"no model 'dog'.* toy, toy-too, owl, org/bat"):
        client.chat.completions.create(model="dog", messages=CHAT["messages"])
    for path, body in {
        "/v1/completions": {"prompt": "x"},
        "/v1/responses": {"input": "x"},
        "/v1/responses/input_tokens": {"input": "x"},
        "/v1/messages": {"messages": CHAT["messages"], "max_tokens": 1},
        "/v1/messages/count_tokens": {"messages": CHAT["messages"]},
        "/v1/embeddings": {"input": "x"},
        "/v1/sessions": {},
        "/v1/states": {"name": "x", "text": "x"},
        "/tokenize": {"prompt": "x"},
        "/api/show": {},
        "/api/chat": {"messages": CHAT["messages"]},
    }.items():
        assert http.post(path, json={**body, "model": "dog"}).status_code == 404, path


def test_marks_and_counts_tell_them_apart(live, http):
    def count(name, model, **labels):
        registry = live.service.metrics.registry
        return registry.get_sample_value(f"griffin_{name}_total", {"model": model, **labels}) or 0

    asked = {"endpoint": "POST /v1/chat/completions", "finish_reason": "ok", "code": "none"}
    before = [count("requests", name, **asked) for name in NAMES]
    tokens = [count("generation_tokens", name) for name in NAMES]
    marks = set()
    for name in ("owl", "owl", "cat"):
        answer = http.post("/v1/chat/completions", json={**CHAT, "model": name}).json()
        marks.add(answer["system_fingerprint"])
    assert len(marks) == 2

    def counted():
        after = [count("requests", name, **asked) for name in NAMES]
        return [b - a for a, b in zip(before, after, strict=True)]

    until(lambda: sum(counted()) >= 3)  # an answer may be here before it is counted
    assert counted() == [0, 2, 0, 1]
    assert [count("generation_tokens", n) - t > 0 for n, t in zip(NAMES, tokens, strict=True)] == [
        *(False, True, False, True),
    ]
    http.post("/v1/chat/completions", json={**CHAT, "model": "somebody's words"})
    assert "somebody" not in http.get("/metrics").text


def refused(answer):
    """Return the sentence of a refusal for another model's state."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "state_mismatch")
    return answer.json()["error"]["message"]


def test_a_session_goes_on_with_its_own_model_alone(http):
    asked = {**CHAT, "session_id": "kept"}
    first = http.post("/v1/chat/completions", json={**asked, "model": "owl"})
    assert first.status_code == 200 and http.get("/v1/sessions/kept").json()["model"] == "owl"
    for other in ("cat", NAME):
        sentence = refused(http.post("/v1/chat/completions", json={**asked, "model": other}))
        assert f"read with the model 'owl', and '{other}' cannot go on" in sentence
    assert http.post("/v1/chat/completions", json={**asked, "model": "owl"}).status_code == 200
    # What names no model does with it what its own model may.
    made = http.post("/v1/sessions/kept/fork", json={"name": "forked"}).json()
    assert made["model"] == "owl" and made["turns"] == 2
    assert http.post("/v1/sessions/forked/rewind", json={"turns": 1}).status_code == 200
    assert http.patch("/v1/sessions/forked", json={"title": "t"}).json()["title"] == "t"
    assert http.post("/v1/sessions/forked/append", json={"text": "more"}).status_code == 200
    assert refused(http.post("/v1/chat/completions", json={**CHAT, "session_id": "forked"}))
    # One in which nothing was read is anybody's.
    assert http.post("/v1/sessions", json={"name": "new"}).json()["model"] == NAME
    assert http.post("/v1/sessions", json={"name": "bats", "model": "org/bat"}).json()["model"]
    for name, session in (("cat", "new"), ("org/bat", "bats")):
        body = {**CHAT, "model": name, "session_id": session}
        assert http.post("/v1/chat/completions", json=body).status_code == 200
        assert http.get(f"/v1/sessions/{session}").json()["model"] == name


def test_states_and_responses_are_their_models_too(http, client):
    made = http.post("/v1/states", json={"name": "read", "text": TEXT, "model": "cat"}).json()
    assert made["model"] == "cat"
    after = {"prompt": " x", "state": "read", "max_tokens": 4, "seed": 0}
    assert "'cat'" in refused(http.post("/v1/completions", json={**after, "model": "owl"}))
    chat = {**CHAT, "state": "read"}
    assert "'cat'" in refused(http.post("/v1/chat/completions", json={**chat, "model": "owl"}))
    said = http.post("/v1/completions", json={**after, "model": "cat"}).json()["choices"]
    whole = {"prompt": f"{TEXT} x", "max_tokens": 4, "seed": 0, "model": "cat"}
    assert said[0]["text"] == http.post("/v1/completions", json=whole).json()["choices"][0]["text"]
    begun = http.post("/v1/states/read/fork", json={"name": "of-state"}).json()
    assert begun["model"] == "cat"
    assert http.post("/v1/sessions", json={"state": "read"}).json()["model"] == "cat"
    assert "'cat'" in refused(
        http.post("/v1/states", json={**after, "name": "no", "model": "owl", "session": "of-state"})
    )
    first = client.responses.create(model="owl", input="one", max_output_tokens=4)
    with pytest.raises(openai.ConflictError, match="read with the model 'owl', and 'cat' cannot"):
        client.responses.create(model="cat", input="two", previous_response_id=first.id)
    client.responses.create(
        model="owl", input="two", previous_response_id=first.id, max_output_tokens=4
    )


def test_a_conversation_is_its_items_whoever_read_them(client):
    """Another model reads them again: the answer is that to the whole text."""
    fields = {"max_output_tokens": 4, "temperature": 0}
    made = client.conversations.create(items=[{"role": "user", "content": "one"}])
    said = [{"role": "user", "content": "one"}]
    for name in ("owl", "owl", "cat", NAME, "owl"):
        answer = client.responses.create(model=name, input="go on", conversation=made.id, **fields)
        said.append({"role": "user", "content": "go on"})
        whole = client.responses.create(model=name, input=said, store=False, **fields)
        assert answer.output_text == whole.output_text, name
        said.append({"role": "assistant", "content": answer.output_text})
    items = client.conversations.items.list(made.id, order="asc")
    assert [item.content[0].text for item in items] == [one["content"] for one in said]


def test_a_hint_at_the_session_of_another_changes_nothing(http, caplog):
    """Open WebUI asks several models at once under the id of one chat."""
    said = {}
    with caplog.at_level(logging.WARNING):  # another test may have let the server log each request
        for hint in ({}, {"x-openwebui-chat-id": "columns"}):
            for name in ("owl", "cat"):
                body = {**CHAT, "model": name}
                answer = http.post("/v1/chat/completions", json=body, headers=hint)
                assert answer.status_code == 200
                assert said.setdefault(name, answer.json()["choices"]) == answer.json()["choices"]
    assert not caplog.records


def test_names_that_two_would_have_are_refused(llm):
    with pytest.raises(ValueError, match="an adapter is called 'owl', and so is the model"):
        build(llm, name="owl")
    with pytest.raises(ValueError, match="an adapter is called 'cat', and so is the model"):
        build(llm, name="x", aliases=["y", "cat"])


def test_one_that_changes_the_model_for_all_is_served_alone(folders, tmp_path, monkeypatch):
    base, adapters = folders
    whole = write_adapter(tmp_path / "whole", LoraConfig(rank=2, whole=("rg_lru",)))
    llm = griffin.load(base, device="cpu", adapter={"whole": whole})
    with serving(llm) as live, live.http() as http:
        (only,) = http.get("/v1/models").json()["data"]
        assert (only["id"], only["parent"]) == ("whole", NAME)
        assert http.post("/v1/chat/completions", json={**CHAT, "model": NAME}).status_code == 404
        assert http.post("/v1/chat/completions", json=CHAT).json()["model"] == "whole"
    monkeypatch.setattr("griffin.checkpoints.load_model", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"adapter whole keeps modules whole .* beside others"):
        griffin.load(base, adapter={"owl": adapters["owl"], "whole": whole})
