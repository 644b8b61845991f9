"""Coding agents and other programs as they are, in the shape that was recorded of them: whatever
they put into their headers, all they send is read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from griffin.conversation import Conversation, fingerprint_of
from griffin.llm import LLM
from griffin.sessions import Store
from tests.support.live_server import Live, serving

SESSION = {"X-Session-Id": "ses_4a1b2c3d4e5fABCDEF"}
TITLE = "You are a title generator. Answer with nothing but a title.\n" + "Rules: be short.\n" * 60
AGENT = "You are opencode, an agent that helps with software.\n" + "Follow the conventions.\n" * 700


def tool(name: str) -> dict[str, Any]:
    path = {"type": "string", "description": f"Where to {name}. " + "Use absolute paths. " * 40}
    about = {"type": "object", "properties": {"path": path}, "required": ["path"]}
    function = {"name": name, "description": f"{name} a file. " * 60, "parameters": about}
    return {"type": "function", "function": function}


TOOLS = [tool(name) for name in ("bash", "edit", "glob", "grep", "read", "task", "write", "fetch")]


@pytest.fixture(scope="module")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(llm, tmp_path_factory.mktemp("agents") / "store", chunk=512) as live:
        yield live


@pytest.fixture
def http(live: Live) -> Iterator[httpx2.Client]:
    with live.http() as http:
        yield http


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def chat(
    http: httpx2.Client, headers: dict[str, str] | None = None, **body: Any
) -> tuple[int, str, str]:
    """Return the prompt's tokens, the answer, and the header that says where it went on from."""
    body = {"max_tokens": 6, "temperature": 0} | body
    answer = http.post("/v1/chat/completions", json=body, headers=headers or {})
    assert answer.status_code == 200, answer.text
    made = answer.json()
    content = made["choices"][0]["message"]["content"]
    return made["usage"]["prompt_tokens"], content, answer.headers["x-griffin-state"]


def check(http: httpx2.Client, **body: Any) -> str:
    """Ask with the header and without; both read as much and answer alike. Return the answer."""
    hinted, plain = chat(http, SESSION, **body), chat(http, **body)
    assert hinted[:2] == plain[:2]
    return hinted[1]


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


# The recorded session.


@pytest.mark.thorough
def test_a_session_of_opencode(http: httpx2.Client) -> None:
    """A title and the agent's first request at once, tools called, two subagents at once, and a
    compaction after which the messages are few again."""
    first = [system(AGENT), user("fix the bug in main.py")]
    title = [system(TITLE), user("Generate a title for this conversation:"), user("fix the bug")]
    assert len(AGENT) + len(str(TOOLS)) > 30_000
    jobs: list[dict[str, Any]] = [
        {"messages": title},
        {"messages": first, "tools": TOOLS},
        {"messages": first, "tools": TOOLS},
    ]
    with ThreadPoolExecutor(3) as pool:
        *_, answer = pool.map(lambda body: check(http, **body), jobs)
    # The agent goes on: a call and its result, as the program sends them back.
    call = {"id": "call_1", "function": {"name": "read", "arguments": '{"path": "/main.py"}'}}
    called = {"role": "assistant", "content": answer, "tool_calls": [call | {"type": "function"}]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "1: import this"}
    second = [*first, called, result]
    answer = check(http, messages=second, tools=TOOLS)
    sub = [
        {"messages": [system("You search."), user(f"find {what}")], "tools": TOOLS[2:4]}
        for what in ("callers", "tests")
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda body: check(http, **body), sub))
    third = [*second, {"role": "assistant", "content": answer}, user("go on")]
    check(http, messages=third, tools=TOOLS)
    # The last step of an agent that has had enough, and a summary of it all.
    check(http, messages=third, tools=TOOLS, tool_choice="none")
    summary = check(http, messages=[system("Summarize."), *third[1:], user("Summarize the above")])
    after = [system(AGENT), user("What did we do?"), {"role": "assistant", "content": summary}]
    check(http, messages=[*after, user("Continue.")], tools=TOOLS)


# The examples that were filed.


def test_an_agent_after_its_title_generator(http: httpx2.Client) -> None:
    headers = {"X-Session-Id": "ses_small"}
    title: dict[str, Any] = {"messages": [system("Generate a title."), user("fix it")]}
    agent: dict[str, Any] = {
        "messages": [system("You are an agent."), user("fix it, please")],
        "tools": TOOLS[:1],
    }
    chat(http, headers, **title)
    read, _, state = chat(http, headers, **agent)
    assert read == chat(http, **agent)[0] > 300 and not state.startswith("session")
    with ThreadPoolExecutor(2) as pool:  # at once, too
        both = list(pool.map(lambda body: chat(http, headers, **body), (title, agent)))
    assert [one[0] for one in both] == [chat(http, **body)[0] for body in (title, agent)]


def test_other_words_in_a_later_turn_of_a_session(http: httpx2.Client) -> None:
    chat(http, session_id="words", messages=[system("Be brief."), user("one")])
    before, *_ = chat(http, session_id="words", messages=[user("two")])
    read, *_ = chat(http, session_id="words", messages=[system("Owl. " * 30), user("three")])
    more, *_ = chat(http, session_id="words", messages=[user("four")], tools=TOOLS[:1])
    assert read > before + 60 and more > read + 300


def test_other_words_in_a_later_response(http: httpx2.Client) -> None:
    def respond(**body: Any) -> tuple[str, int]:
        body = {"max_output_tokens": 6, "temperature": 0} | body
        made = http.post("/v1/responses", json=body).json()
        return made["id"], made["usage"]["input_tokens"]

    first, _ = respond(input="one", instructions="Be brief.")
    _, short = respond(input="two", previous_response_id=first, instructions="Be brief.")
    _, long = respond(input="two", previous_response_id=first, instructions="Owls hoot. " * 40)
    _, none = respond(input="two", previous_response_id=first)
    flat = [{"type": "function", **one["function"]} for one in TOOLS[:1]]
    _, tools = respond(input="two", previous_response_id=first, tools=flat)
    assert none < short and long > short + 100 and tools > none + 300


def test_three_columns_of_a_chat_at_once(http: httpx2.Client) -> None:
    headers = {"X-OpenWebUI-Chat-Id": "0d2f5c58-7a35-4d8e-9d3a-3a5c0f3f9a10"}
    body = {"messages": [user("one")], "seed": 1, "temperature": 1.0}
    with ThreadPoolExecutor(3) as pool:
        heard = list(pool.map(lambda _: chat(http, headers, **body)[1], range(3)))
    assert heard == [chat(http, **body)[1]] * 3
    chat_id = headers["X-OpenWebUI-Chat-Id"]
    turns = http.get(f"/v1/sessions/{chat_id}/turns").json()["data"]
    assert len(turns) == 1  # the same answer again is the turn that is there


def test_penalties_after_a_state_are_the_terminals(llm: LLM, live: Live, tmp_path: Path) -> None:
    """What it read is not known; its pending ids, and all that follows, are penalized alike."""
    fields = {"repetition_penalty": 3.0, "temperature": 0, "max_tokens": 8}
    with live.http() as http:
        http.post("/v1/states", json={"name": "penalty", "text": "import json\n" * 9})
        http.post("/v1/states/penalty/fork", json={"name": "penalty"})
        heard = [
            chat(http, session_id="penalty", messages=[user(message)], **fields)[1]
            for message in ("one", "two", "three")
        ]
    assert live.service.store is not None
    states = live.service.store.within("states")
    states.export("penalty", tmp_path / "x.state")
    with Store(tmp_path / "store") as store:
        store.import_(tmp_path / "x.state", "x")
        talk = Conversation(llm, store.open("x", fingerprint_of(llm)), sampling=fields)
        assert ["".join(talk.say(message)) for message in ("one", "two", "three")] == heard
        talk.close()
