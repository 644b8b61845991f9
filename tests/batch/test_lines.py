"""What a line of a batch may be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from griffin.batch.lines import CHAT, PATHS, TEXT, parse_line, seed_of

MESSAGES = [{"role": "user", "content": "x"}]


def test_prompts_alone() -> None:
    line = parse_line(b'"say it"', 7)
    assert (line.custom_id, line.path) == ("line-7", TEXT)
    assert line.body == {"prompt": "say it", "seed": seed_of("line-7")}
    given = {"custom_id": "a", "messages": MESSAGES, "seed": 3}
    line = parse_line(json.dumps(given).encode(), 1)
    assert (line.custom_id, line.path, line.body) == ("a", CHAT, {"messages": MESSAGES, "seed": 3})


@pytest.mark.parametrize("path", PATHS)
def test_openai_s_lines(path: str) -> None:
    body = {"model": "m", "input": "x"}
    given = {"custom_id": "a", "method": "POST", "url": path, "body": body}
    line = parse_line(json.dumps(given).encode(), 1)
    assert (line.path, line.body) == (path, body | {"seed": seed_of("a")})


def test_seeds_are_of_the_name_alone() -> None:
    seeds = {seed_of(f"line-{number}") for number in range(1000)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of("line-1") == seed_of("line-1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"3", "an object, or a prompt"),
        (b"{}", "a prompt, or messages"),
        ({"prompt": "x", "messages": MESSAGES}, "a prompt, or messages"),
        ({"custom_id": 3, "prompt": "x"}, "custom_id must be"),
        ({"prompt": "x", "stream": True}, "stream makes no sense"),
        ({"url": CHAT, "body": {}}, "lacks custom_id"),
        ({"custom_id": "a", "url": "/v1/models", "body": {}}, "a batch has /v1/chat"),
        ({"custom_id": "a", "url": CHAT, "body": []}, "body must be an object"),
        ({"custom_id": "a", "method": "GET", "url": CHAT, "body": {}}, "POST alone"),
    ],
)
def test_what_is_no_line(given: Any, message: str) -> None:
    raw = given if isinstance(given, bytes) else json.dumps(given).encode()
    with pytest.raises(ValueError, match=message):
        parse_line(raw, 1)
