"""What benchmark clients send, and what they count of the answer: guidellm, vllm bench, genai-perf.

The bodies are written in their form; no program of theirs runs here.
"""

from __future__ import annotations

import json

import pytest

from tests.support.live_server import NAME

TOKENS = 24
PARTS = [{"role": "user", "content": [{"type": "text", "text": "Hi there"}]}]
PLAIN = [{"role": "user", "content": "Hi there"}]
USAGE = {"include_usage": True}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

SENT = {
    "guidellm chat": (
        CHAT,
        {"messages": PARTS, "max_tokens": TOKENS, "max_completion_tokens": TOKENS}
        | {"stop": None, "ignore_eos": True}
        | {"stream_options": USAGE | {"continuous_usage_stats": True}},
    ),
    "guidellm text": (
        TEXT,
        {"prompt": "Hi there", "max_tokens": TOKENS, "stop": None, "ignore_eos": True}
        | {"stream_options": USAGE | {"continuous_usage_stats": True}},
    ),
    "vllm bench text": (
        TEXT,
        {"prompt": "Hi there", "temperature": 0.0, "repetition_penalty": 1.0, "logprobs": None}
        | {"max_tokens": TOKENS, "ignore_eos": True, "stream_options": USAGE},
    ),
    "vllm bench ids": (
        TEXT,
        {"prompt": [2, 5, 9], "max_tokens": TOKENS, "ignore_eos": True, "stream_options": USAGE},
    ),
    "vllm bench chat": (
        CHAT,
        {"messages": PARTS, "max_completion_tokens": TOKENS, "ignore_eos": True}
        | {"temperature": 0.0, "stream_options": USAGE},
    ),
    "genai-perf": (
        CHAT,
        {"messages": PLAIN, "max_tokens": TOKENS, "min_tokens": TOKENS, "ignore_eos": True}
        | {"stream_options": USAGE},
    ),
    "genai-perf text": (
        TEXT,
        {"prompt": ["Hi there"], "max_tokens": TOKENS, "min_tokens": TOKENS, "ignore_eos": True}
        | {"stream_options": USAGE},
    ),
}


@pytest.mark.parametrize("name", SENT)
def test_every_answer_has_the_length_that_was_asked_for(http, llm, name):
    path, body = SENT[name]
    ends = {str(id): 5 for id in llm.stop_ids}  # left to itself it would end soon
    asked = body | {"model": NAME, "stream": True, "logit_bias": ends}
    with http.stream("POST", path, json=asked, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        assert "x-griffin-ignored" not in answer.headers
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    events = [json.loads(line) for line in lines]
    used = [event["usage"] for event in events if event.get("usage")]
    assert used[-1]["completion_tokens"] == TOKENS and used[-1]["prompt_tokens"] > 0
    assert not events[-1]["choices"]  # where the cost is read from
    reasons = [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]
    assert reasons == ["length"]
    if "continuous_usage_stats" in body["stream_options"]:
        assert len(used) == len(events)


def test_vectors_of_a_benchmark(http):
    body = {"model": NAME, "input": "Hi there", "truncate_prompt_tokens": -1}
    answer = http.post("/v1/embeddings", json=body)
    assert answer.status_code == 200 and answer.json()["usage"]["total_tokens"] > 1
