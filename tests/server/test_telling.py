"""What an answer tells beside its text when it is asked to, in vLLM's and llama.cpp's words."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch

from tests.support.live_server import serving
from tests.support.request_bodies import refused
from tests.support.tool_calls import HI, TOOLS

LONG = [3 + n % 400 for n in range(700)]
CHAT = ("/v1/chat/completions", {"messages": HI, "max_tokens": 9, "seed": 3})
TEXT = ("/v1/completions", {"prompt": "import json", "max_tokens": 9, "seed": 3})


def post(http, path, body, **more):
    answer = http.post(path, json=body | more, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "x-griffin-ignored" not in answer.headers
    return answer.json()


def events(http, path, body, **more):
    """Return the events of a stream."""
    with http.stream("POST", path, json=body | {"stream": True} | more, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def prompt_ids(llm, path):
    if path == TEXT[0]:
        return llm.tokenizer.encode("import json")
    return llm.chat_format.ids(HI)


@pytest.mark.parametrize(("path", "body"), [CHAT, TEXT])
def test_ids_of_prompt_and_answers(http, llm, path, body):
    bare = post(http, path, body)
    assert "token_ids" not in json.dumps(bare)
    made = post(http, path, body, return_token_ids=True, n=2)
    prompt = prompt_ids(llm, path)
    told = [made] if path == CHAT[0] else made["choices"]
    assert all(one["prompt_token_ids"] == prompt for one in told)
    ids = [choice["token_ids"] for choice in made["choices"]]
    assert sum(map(len, ids)) == made["usage"]["completion_tokens"]
    asked = dict(max_tokens=9, seed=3)
    first = llm.chat(HI, **asked) if path == CHAT[0] else llm.generate("import json", **asked)
    assert ids[0] == list(first.ids)
    streamed = events(http, path, body, return_token_ids=True, n=2)
    joined: list[list[int]] = [[], []]
    given: list[list[int]] = []
    for event in streamed:
        given += [event["prompt_token_ids"]] if "prompt_token_ids" in event else []
        for choice in event["choices"]:
            joined[choice["index"]] += choice.get("token_ids", [])
            given += [choice["prompt_token_ids"]] if "prompt_token_ids" in choice else []
    assert joined == ids and given == [prompt] * 2


def test_ids_go_where_text_waits_for_a_call(http):
    body = CHAT[1] | {"tools": TOOLS, "tool_choice": "required", "max_tokens": 60}
    whole = post(http, CHAT[0], body, return_token_ids=True)["choices"][0]
    assert whole["message"]["tool_calls"]
    streamed = events(http, CHAT[0], body, return_token_ids=True)
    ids = [id for event in streamed for c in event["choices"] for id in c.get("token_ids", ())]
    assert ids == whole["token_ids"]


def test_what_was_read_in_a_session_has_no_ids(http):
    for expected in (True, False):
        made = post(http, *CHAT, session_id="ids", return_token_ids=True)
        assert (made["prompt_token_ids"] is not None) is expected
    answer = http.post(CHAT[0], json=CHAT[1] | {"session_id": "ids", "prompt_logprobs": 1})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "prompt_logprobs"
    hint = http.post(
        CHAT[0], json=CHAT[1] | {"return_token_ids": True}, headers={"x-session-id": "hinted"}
    )
    again = http.post(
        CHAT[0],
        json=CHAT[1] | {"return_token_ids": True, "prompt_logprobs": 0},
        headers={"x-session-id": "hinted"},
    )
    assert hint.json()["prompt_token_ids"] == again.json()["prompt_token_ids"]
    assert len(again.json()["prompt_logprobs"]) == len(again.json()["prompt_token_ids"])


def test_tokens_that_are_called_by_their_ids(http, llm):
    more = {"return_tokens_as_token_ids": True, "return_token_ids": True}
    chat = post(http, *CHAT, logprobs=True, top_logprobs=2, **more)["choices"][0]
    content = chat["logprobs"]["content"]
    said = [int(token["token"].removeprefix("token_id:")) for token in content]
    assert said == chat["token_ids"][: len(said)] and len(said) >= 8
    tokenizer = llm.tokenizer
    assert [bytes(t["bytes"]) for t in content] == [tokenizer.token_bytes(id) for id in said]
    assert all(o["token"].startswith("token_id:") for t in content for o in t["top_logprobs"])
    text = post(http, *TEXT, logprobs=2, echo=True, **more)["choices"][0]
    names = text["logprobs"]["tokens"]
    assert [int(name.removeprefix("token_id:")) for name in names] == [
        *text["prompt_token_ids"][1:],  # the BOS is not echoed
        *text["token_ids"],
    ]
    assert all(
        key.startswith("token_id:") for top in text["logprobs"]["top_logprobs"][1:] for key in top
    )


@pytest.mark.parametrize("wanted", [0, 3])
def test_what_the_model_makes_of_the_prompt(http, llm, wanted):
    made = post(http, *TEXT, prompt=[LONG, LONG[:4]], prompt_logprobs=wanted)
    vocab_size = llm.tokenizer.vocab_size
    for choice, ids in zip(made["choices"], (LONG, LONG[:4]), strict=True):
        first, *others = choice["prompt_logprobs"]
        assert first is None and len(others) == len(ids) - 1
        with torch.no_grad():
            logits, _ = llm.model(torch.tensor([ids]))
        logprobs = logits[0, :, :vocab_size].log_softmax(1)
        for place, entry in enumerate(others):
            own = entry[str(ids[place + 1])]
            row = logprobs[place]
            assert own["logprob"] == pytest.approx(float(row[ids[place + 1]]), abs=1e-3)
            assert own["rank"] == 1 + int((row > row[ids[place + 1]]).sum())
            assert own["decoded_token"] == llm.tokenizer.token_text(ids[place + 1])
            ranks = [other["rank"] for other in entry.values() if other["rank"] <= wanted]
            assert sorted(ranks) == list(range(1, wanted + 1))
            assert wanted <= len(entry) <= wanted + 1 or not wanted
    chat = post(http, *CHAT, prompt_logprobs=wanted)
    assert len(chat["prompt_logprobs"]) == len(prompt_ids(llm, CHAT[0]))
    read = post(http, *TEXT, prompt_logprobs=wanted, max_tokens=0)["choices"][0]
    assert len(read["prompt_logprobs"]) == len(prompt_ids(llm, TEXT[0]))


def test_more_of_it_than_a_request_may_have(llm):
    with serving(llm, limits={"max_scores": 100}) as live, live.http() as http:
        post(http, *TEXT, prompt=LONG[:33], prompt_logprobs=2)
        for more in (
            {"prompt": LONG[:34]},
            {"prompt_logprobs": 3},
            {"prompt": [LONG[:17]] * 2},
            {"prompt": LONG[:17], "n": 2},
        ):
            body = TEXT[1] | {"prompt": LONG[:33], "prompt_logprobs": 2} | more
            error = http.post(TEXT[0], json=body).json()["error"]
            assert error["param"] == "prompt_logprobs" and "--max-scores" in error["message"]


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_what_cannot_be_told(kind):
    for fields, param in (
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"return_progress": 1}, "return_progress"),
    ):
        assert refused(kind, **fields).param == param


def test_the_end_of_a_prompt_alone(http, llm):
    whole = prompt_ids(llm, TEXT[0])
    for most, ids in ((3, [whole[0], *whole[-2:]]), (1, whole[:1]), (-1, whole), (999, whole)):
        made = post(http, *TEXT, truncate_prompt_tokens=most, return_token_ids=True)
        assert made["choices"][0]["prompt_token_ids"] == ids
        assert made["usage"]["prompt_tokens"] == len(ids)
        same = post(http, *TEXT, prompt=ids, return_token_ids=True)["choices"][0]["token_ids"]
        assert made["choices"][0]["token_ids"] == same
    given = post(http, *TEXT, prompt=LONG, truncate_prompt_tokens=5, return_token_ids=True)
    assert given["choices"][0]["prompt_token_ids"] == LONG[-5:]
    chat = post(http, *CHAT, truncate_prompt_tokens=5, return_token_ids=True)
    assert chat["prompt_token_ids"] == prompt_ids(llm, CHAT[0])[-5:]
    hinted = http.post(
        CHAT[0],
        json=CHAT[1] | {"truncate_prompt_tokens": 5},
        headers={"x-session-id": "cut-short"},
    )
    assert hinted.status_code == 200
    assert http.get("/v1/sessions/cut-short").status_code == 404  # nothing is kept of it
    for path, body, param in (
        (*CHAT, {"session_id": "a"}),
        (*CHAT, {"state": "a"}),
        (*TEXT, {"echo": True}),
    ):
        answer = http.post(path, json=body | param | {"truncate_prompt_tokens": 5})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize(("path", "body"), [CHAT, TEXT])
@pytest.mark.parametrize("include", [True, False])
def test_the_cost_with_every_event(http, path, body, include):
    options = {"continuous_usage_stats": True, "include_usage": include}
    found = events(http, path, body, stream_options=options, n=2, return_token_ids=True)
    whole = post(http, path, body, n=2)["usage"]
    counts = [event["usage"]["completion_tokens"] for event in found]
    assert counts == sorted(counts) and counts[-1] == whole["completion_tokens"]
    sent = 0
    for event in found:
        sent += sum(len(choice.get("token_ids", ())) for choice in event["choices"])
        used = event["usage"]
        assert used["completion_tokens"] in (sent, counts[-1])
        assert used["prompt_tokens"] == whole["prompt_tokens"]
        assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    assert (not found[-1]["choices"]) is include


@pytest.mark.parametrize("path", [CHAT[0], TEXT[0]])
def test_how_much_of_the_prompt_is_read(llm, path):
    with serving(llm, chunk=64) as live, live.http() as http:
        body = {"max_tokens": 3, "seed": 1, "return_progress": True}
        if path == CHAT[0]:
            body["messages"] = [{"role": "user", "content": "x y z " * 300}]
        else:
            body["prompt"] = LONG
        for cached in (False, True):
            found = events(http, path, body, stream_options={"include_usage": True})
            told = [event["prompt_progress"] for event in found if "prompt_progress" in event]
            total, spared = found[-1]["usage"]["prompt_tokens"], told[0]["cache"]
            assert bool(spared) is cached
            assert all(set(one) == {"total", "cache", "processed", "time_ms"} for one in told)
            assert all(one["total"] == total and one["cache"] == spared for one in told)
            done = [one["processed"] for one in told]
            assert done[-1] == total and all(a < b for a, b in pairwise(done))
            assert all(one["time_ms"] >= 0 for one in told)
            first = next(n for n, e in enumerate(found) if "prompt_progress" in e)
            assert not any(
                c.get("text") or c.get("delta", {}).get("content")
                for event in found[:first]
                for c in event["choices"]
            )
        assert "prompt_progress" not in json.dumps(
            events(http, path, body | {"return_progress": False})
        )
