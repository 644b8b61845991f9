"""Bodies in Anthropic's and Ollama's form that are refused, and where they are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.request_bodies import USER, refused


def block(block: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [block]}]}


CALLED = {"function": {"name": "f", "arguments": {}}}
WRONG = [
    ("message", {"messages": []}, "messages"),
    ("message", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ("message", block({"type": "image", "source": {}}), "messages[0].content[0].type"),
    ("message", block({"type": "text"}), "messages[0].content[0].text"),
    ("message", block({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
    ("message", block({"type": "tool_use", "id": "c"}), "messages[0].content[0].type"),
    (
        "message",
        block({"type": "tool_use", "id": "c", "name": "f"}, "assistant"),
        "messages[0].content[0].input",
    ),
    (
        "message",
        block({"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image"}]}),
        "messages[0].content[0].content[0].type",
    ),
    ("message", {"system": [{"type": "image"}]}, "system[0].type"),
    ("message", {"tools": [{"type": "web_search_20260318", "name": "w"}]}, "tools[0].type"),
    ("message", {"tools": [{"name": "f", "parameters": {}}]}, "tools[0].parameters"),
    ("message", {"tools": [{"name": "f", "input_schema": []}]}, "tools[0].input_schema"),
    ("message", {"tools": [{"name": "f"}] * 2}, "tools[1].name"),
    ("message", {"tools": [], "tool_choice": {"type": "any"}}, "tool_choice"),
    ("message", {"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ("message", {"stop_sequences": ["a"] * 17}, "stop_sequences"),
    ("message", {"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
    ("message", {"stop_sequences": ["a"], "stop": "b"}, "stop"),
    ("message", {"max_tokens": 0}, "max_tokens"),
    ("message", {"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ("message", {"output_format": {"type": "json_schema"}}, "output_format"),
    ("message", {"output_config": {"format": {"type": "json_schema"}}}, None),
    ("ollama", {"messages": [{"role": "owl"}]}, "messages[0].role"),
    ("ollama", {"messages": [{**USER[0], "images": ["x"]}]}, "messages[0].images"),
    ("ollama", {"messages": [{**USER[0], "tool_calls": [CALLED]}]}, "messages[0].tool_calls"),
    ("ollama", {"messages": USER * 4097}, "messages"),
    ("ollama", {"tools": [{"type": "function", "function": {"name": "a b"}}]}, None),
    ("ollama", {"options": {"temperature": -1}}, "options.temperature"),
    ("ollama", {"options": {"stop": ["a", ""]}}, "options.stop[1]"),
    ("ollama", {"options": {"mirostat": 1}}, "options.mirostat"),
    ("ollama", {"options": {"num_predict": "x"}}, "options.num_predict"),
    ("ollama", {"format": "xml"}, "format"),
    ("ollama", {"format": 5}, "format"),
    ("ollama", {"top_logprobs": 21}, "top_logprobs"),
    ("generate", {"context": [1]}, "context"),
    ("generate", {"suffix": "x"}, "suffix"),
    ("generate", {"template": "x"}, "template"),
    ("generate", {"images": ["x"]}, "images"),
    ("generate", {"raw": True, "system": "s"}, "system"),
    ("show", {"model": 5}, "model"),
    ("embed", {"input": []}, "input"),
    ("embed", {"input": ["a", ""]}, "input[1]"),
    ("embed", {"dimensions": 0}, "dimensions"),
    ("embed_prompt", {"prompt": ""}, "prompt"),
]


@pytest.mark.parametrize(("kind", "fields", "param"), WRONG)
def test_what_is_wrong_is_refused_with_its_path(kind, fields, param):
    error = refused(kind, **fields)
    assert error.status == 400 and len(error.message) < 400
    if param is not None:
        assert error.param == param
        assert param.partition("[")[0].partition(".")[0] in error.message
