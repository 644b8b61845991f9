"""What the model may be called, paths without /v1, and what a remote tokenizer asks."""

from __future__ import annotations

import pytest

from griffin.server.endpoints import OPERATIONS
from tests.support.live_server import CHAT, NAME, serving


@pytest.fixture(scope="module")
def live(llm):
    with serving(llm, aliases=["org/owl", NAME, "gpt-4"], any_name=False) as live:
        yield live


def test_each_name_is_listed_and_answered(http):
    names = [NAME, "org/owl", "gpt-4"]
    assert [one["id"] for one in http.get("/v1/models").json()["data"]] == names
    answers = set()
    for name in names:
        assert http.get(f"/v1/models/{name}").json()["id"] == name
        answer = http.post("/v1/chat/completions", json={**CHAT, "model": name}).json()
        assert answer["model"] == name
        answers.add(answer["choices"][0]["message"]["content"])
        legacy = http.post("/v1/completions", json={"model": name, "prompt": "a", "max_tokens": 1})
        assert legacy.json()["model"] == name
    assert len(answers) == 1
    assert http.post("/v1/chat/completions", json=CHAT).json()["model"] == NAME
    refused = http.post("/v1/chat/completions", json={**CHAT, "model": "other"})
    assert refused.status_code == 404 and "org/owl" in refused.json()["error"]["message"]


def test_any_name_is_answered_and_said_again(llm):
    with serving(llm, any_name=True) as live, live.http() as http:
        answer = http.post("/v1/chat/completions", json={**CHAT, "model": "gpt-4o"}).json()
        assert answer["model"] == "gpt-4o"
        assert http.post("/v1/chat/completions", json=CHAT).json()["model"] == NAME
        assert http.get("/v1/models/what/ever").json()["id"] == "what/ever"
        assert [one["id"] for one in http.get("/v1/models").json()["data"]] == [NAME]
        long = http.post("/v1/chat/completions", json={**CHAT, "model": "x" * 300})
        assert long.status_code == 400


def test_every_path_has_a_form_without_its_version(live, http):
    answer = http.post("/chat/completions", json=CHAT).json()
    assert answer["choices"] == http.post("/v1/chat/completions", json=CHAT).json()["choices"]
    assert http.get("/models").json()["data"][0]["id"] == NAME
    assert http.get("/v1/tokenizer_info").status_code == 404  # the other way round there is none
    assert http.get("/v1/v1/models").status_code == 404
    routes = live.server.config.app.routes
    for one in OPERATIONS:
        for path in (one.path, one.path.removeprefix("/v1")):
            found = [
                route.name
                for route in routes
                if route.method == one.method and route.pattern.fullmatch(path)
            ]
            assert found == [one.route], path  # nobody else has it


def test_what_a_remote_tokenizer_asks(http, llm):
    """The requests of lm-eval's RemoteTokenizer, which are vLLM's."""
    info = http.get("/tokenizer_info").json()
    tokenizer = llm.tokenizer
    for role in ("bos", "eos"):
        asked = {"prompt": info[f"{role}_token"], "add_special_tokens": False}
        tokens = http.post("/tokenize", json=asked).json()["tokens"]
        assert tokens == [getattr(tokenizer, f"{role}_id")]
    asked = {"prompt": f"a{info['eos_token']}", "add_special_tokens": False}
    tokens = http.post("/tokenize", json=asked).json()["tokens"]
    assert tokens == tokenizer.encode(asked["prompt"], bos=False)  # in a text it is text
    assert http.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == asked["prompt"]
    assert info["chat_template"] == tokenizer.chat_template
    assert info["vocab_size"] == tokenizer.vocab_size
    begun = http.post("/tokenize", json={"prompt": info["bos_token"]}).json()["tokens"]
    assert begun == [tokenizer.bos_id]
    begun = http.post("/tokenize", json={"prompt": info["eos_token"]}).json()["tokens"]
    assert begun == [tokenizer.bos_id, tokenizer.eos_id]
