"""What a row says, and why one says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from griffin.train.data.example import (
    CompletionRow,
    ConversationRow,
    PreferenceRow,
    PromptRow,
    TextRow,
    read_example,
    words_of,
)

ASK = {"role": "user", "content": "Why?"}
SAY = {"role": "assistant", "content": "So."}


def test_shapes() -> None:
    assert read_example({"text": "a", "id": 3}) == TextRow("a")
    talk = read_example({"messages": [ASK, SAY], "prompt": None})
    assert talk == ConversationRow((ASK, SAY))
    assert read_example({"prompt": "a", "completion": " b"}) == CompletionRow("a", " b")
    assert read_example({"prompt": [ASK], "completion": [SAY]}) == ConversationRow((ASK, SAY), 1)
    better = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert read_example(better) == PreferenceRow("a", "b", "c")
    assert isinstance(
        read_example({"prompt": [ASK], "chosen": [SAY], "rejected": [SAY]}), PreferenceRow
    )
    assert read_example({"prompt": "a"}) == PromptRow("a")
    assert read_example({"prompt": "a", "text": "b"}, ["text"]) == TextRow("b")
    assert words_of(talk) == "Why?\nSo." and words_of(PreferenceRow("a", "b", "c")) == "a\nb\nc"


def test_contents_in_parts_and_columns_that_are_null() -> None:
    parts = [{"type": "text", "text": "W"}, {"type": "text", "text": "hy?"}]
    asked = {"role": "user", "content": parts, "tool_calls": None, "name": "Ada"}
    said = {"role": "model", "content": "So.", "finish_reason": "stop"}
    assert read_example({"messages": [asked, said], "text": None}) == ConversationRow((ASK, SAY))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, SAY], "finish_reason": "length"},
        {"messages": [ASK, SAY | {"finish_reason": "length"}]},
        {"messages": [ASK, SAY | {"finish_reason": "max_tokens"}, ASK]},
        {"prompt": "a", "completion": "b", "finish_reason": "length"},
        {"prompt": [ASK], "completion": [SAY], "finish_reason": "length"},
    ],
)
def test_an_answer_cut_by_length(row: dict[str, Any]) -> None:
    example = read_example(row)
    assert isinstance(example, ConversationRow | CompletionRow) and example.cut


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (3, "a row is an object with columns, not 3"),
        (["text"], "a row is an object"),
        ({}, "a row has one of: text, messages, prompt"),
        ({"txt": "a"}, r"columns are \['txt'\]"),
        ({"text": None}, "a row has one of"),
        ({"completion": "a"}, "has completion; a row has one of"),
        ({"chosen": "a", "rejected": "b"}, "has chosen, rejected; a row has one of"),
        ({"text": "a", "messages": [ASK]}, r"has messages, text; .*columns = \[...\]"),
        ({"text": 3}, "text is text, not 3"),
        ({"text": "a\ud800"}, r"lone surrogate, U\+D800, at character 1"),
        ({"text": "a", "finish_reason": 3}, "finish_reason is text, not 3"),
        ({"messages": "hello"}, "messages is a list of messages, not 'hello'"),
        ({"messages": []}, "needs a user message"),
        ({"messages": [[]]}, r"messages\[0\] is an object with role and content"),
        ({"messages": [ASK | {"weight": 1}]}, r"messages\[0\] has 'weight'"),
        ({"messages": [ASK, SAY | {"tool_calls": [1]}]}, r"messages\[1\] has 'tool_calls'"),
        ({"messages": [ASK | {"content": 3}]}, r"messages\[0\].content is text, not 3"),
        ({"messages": [ASK | {"content": [{"type": "image"}]}]}, r"messages\[0\] holds"),
        ({"messages": [ASK | {"role": 3}]}, "has role 3; a role is text"),
        ({"messages": [ASK | {"role": "tool"}]}, r"messages\[0\] has role 'tool'; allowed are"),
        ({"messages": [ASK, ASK]}, r"messages\[1\] has role user, but it is the assistant's turn"),
        ({"messages": [ASK, SAY, SAY]}, "user and assistant alternate"),
        ({"messages": [ASK, {"role": "system", "content": "x"}]}, "only the first message"),
        ({"messages": [ASK, SAY | {"content": " \n"}]}, r"messages\[1\] is an empty answer"),
        ({"messages": [ASK, SAY | {"finish_reason": "length"}, ASK, SAY]}, "goes on after it"),
        ({"prompt": "a", "completion": ""}, "completion is an empty answer"),
        ({"prompt": "a", "completion": [SAY]}, "prompt and completion are both text or both"),
        ({"prompt": [ASK], "completion": []}, "completion is an empty list"),
        ({"prompt": [ASK], "completion": [ASK]}, "role 'user'; an answer is assistant's"),
        ({"prompt": [ASK, SAY], "completion": [SAY]}, "user and assistant alternate"),
        ({"prompt": [ASK], "chosen": [SAY], "rejected": [SAY, SAY]}, "alternate"),
        ({"prompt": [SAY, SAY]}, "alternate"),
    ],
)
def test_why_a_row_says_nothing(row: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_example(row)
