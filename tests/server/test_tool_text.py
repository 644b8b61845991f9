"""Calls as text: written, read back in any pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.server.conversations.asked import words_of
from griffin.server.protocol import Message, Tool, ToolCall
from griffin.server.tool_text import CallReader, Said, as_text, described, read_answer, told

LOOK = (
    '<tool_call>{"name": "look", "arguments": {"at": "}\\"</tool_call>{", "n": [1,'
    " {}]}}</tool_call>"
)
NONE = '<tool_call>{"name": "look_up-2", "arguments": {}}</tool_call>'
ARGUMENTS = '{"at": "}\\"</tool_call>{", "n": [1, {}]}'


def parts(text: str) -> tuple[str, list[tuple[str, str]], bool]:
    read = read_answer(text)
    return read.text, [(call.name, call.arguments) for call in read.calls], read.whole


def joined(said: list[Said]) -> list[Said]:
    """Join neighbours of one kind."""
    out: list[Said] = []
    for part in said:
        if out and part.kind == out[-1].kind in ("text", "arguments"):
            out[-1] = Said(part.kind, out[-1].text + part.text)
        else:
            out.append(part)
    return out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", ("Hello", [], False)),
        ("  a < b \n", ("  a < b \n", [], False)),
        ("<tool_cal", ("<tool_cal", [], False)),
        (LOOK, ("", [("look", ARGUMENTS)], True)),
        (f"Let me see.\n{LOOK}", ("Let me see.", [("look", ARGUMENTS)], True)),
        (f"\n {LOOK}\n{NONE}", ("", [("look", ARGUMENTS), ("look_up-2", "{}")], True)),
        (f"<<tool_call{NONE}", ("<<tool_call", [("look_up-2", "{}")], True)),
        (f"{NONE}\n<tool", ("", [("look_up-2", "{}")], True)),
        (LOOK[:45], ("", [("look", ARGUMENTS[: 45 - LOOK.index(ARGUMENTS)])], False)),
        (f"a {NONE[:-3]}", ("a", [("look_up-2", "{}")], False)),
        ('a <tool_call>{"na', ("a", [], False)),
    ],
)
def test_an_answer_is_parted(text, expected):
    assert parts(text) == expected


@given(
    st.lists(st.sampled_from([LOOK, NONE, "<tool", "\n", " ", "é", "<", "Hi"]), max_size=6).map(
        "".join
    ),
    st.lists(st.integers(1, 9), max_size=80),
    st.booleans(),
)
def test_pieces_say_what_the_whole_does(text, cuts, anywhere):
    """And text is given out as soon as it cannot belong to a call."""
    if "<tool_call>" in text.replace(LOOK, "").replace(NONE, ""):
        return
    calls = [at for at in range(len(text)) if text.startswith((LOOK, NONE), at)]
    if calls:  # as the grammar has it: text first, calls on lines of their own
        ends = [text.find("</tool_call>", text.find("}}", at)) + 12 for at in calls]
        text = text[: calls[0]] + "\n".join(text[a:b] for a, b in zip(calls, ends, strict=True))
        text = text if anywhere else text[calls[0] :]
    reader, said, at = CallReader(anywhere), [], 0
    for cut in [*cuts, len(text)]:
        said += reader.feed(text[at : at + cut])
        given_out = sum(len(part.text) for part in said if part.kind == "text")
        if not reader.called and anywhere:
            held = text[given_out : at + cut]
            assert len(held.strip()) < len("<tool_call>") or "<tool_call>" in held
        at += cut
    said += reader.finish()
    whole = CallReader(anywhere)
    assert (
        joined(said) == joined([*whole.feed(text), *whole.finish()]) and reader.whole == whole.whole
    )


def test_json_that_speaks_of_calls_is_no_call():
    """Where the answer must be JSON, only its very beginning can be a call."""
    text = f'{{"say": "{NONE[:11]}"}}'
    reader = CallReader(anywhere=False)
    assert [*reader.feed(text[:5]), *reader.feed(text[5:]), *reader.finish()] == [
        Said("text", text[:5]),
        Said("text", text[5:]),
    ]
    assert read_answer(NONE, anywhere=False).whole


def test_what_was_said_is_written_back_as_it_was():
    """So a conversation with calls in it is found again, in the cache and in a session."""
    said = f"Let me see.\n{LOOK}\n{NONE}"
    read = read_answer(said)
    (back,) = as_text([Message("assistant", read.text, tool_calls=tuple(read.calls))])
    assert back.content == said and not back.tool_calls


def test_tools_are_described_and_results_told():
    tools = [Tool("look", "Looks.", {"type": "object"}, False)]
    call = ToolCall("call_1", "look", "")
    told = as_text(
        [
            Message("user", "Hi"),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "an owl", "look", tool_call_id="call_1"),
        ]
    )
    assert [m.role for m in told] == ["user", "assistant", "user"]
    line = described(tools).splitlines()[1]
    assert json.loads(line) == {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object"},
    }
    assert told[1].content == '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    assert told[2].content == "Result of look (call_1):\nan owl"


names = st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True)
tools = st.builds(
    Tool,
    name=names,
    description=st.text(max_size=20),
    parameters=st.dictionaries(names, st.text(max_size=5) | st.integers(0, 9), max_size=2),
    strict=st.just(False),
)


@given(offered=st.lists(tools, max_size=3), system=st.none() | st.text(min_size=1, max_size=20))
def test_words_tell_the_tools_they_describe(offered: list[Tool], system: str | None) -> None:
    assert told(words_of(offered, system)) == (offered, system)


@pytest.mark.parametrize(
    "words",
    [
        "Be brief.",
        "You may call these functions:",
        "You may call these functions:\nnone\nTo call one, answer with nothing but"
        ' <tool_call>{"name": ..., "arguments": {...}}</tool_call>',
    ],
)
def test_words_that_describe_no_tools_are_a_system_text(words: str) -> None:
    assert told(words) == ([], words)
