"""System text and tools of a session: what a later turn says of them is read, what it leaves out is
the session's, and the old branch is as if nothing had been."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from griffin.llm import LLM
from griffin.server.conversations.asked import words_of
from griffin.server.protocol import Tool
from tests.support.live_server import Live, serving

BRIEF, KIND = "Be brief.", "Be kind.\n\n And tell of owls."
LOOK = Tool("look", "Look at it.", {"type": "object"}, strict=False)
SING = Tool("sing", "", {"type": "object"}, strict=False)


@pytest.fixture(scope="module")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    # No prefix cache: what is not read again is what the session knows.
    with serving(llm, tmp_path_factory.mktemp("words") / "store", cache_bytes=0) as live:
        yield live


@pytest.fixture
def http(live: Live) -> Iterator[httpx2.Client]:
    with live.http() as http:
        yield http


@pytest.fixture(scope="module")
def fields(llm: LLM) -> dict[str, Any]:
    """Letters alone: a tool's grammar, which lets no half of a character through, changes nothing
    then."""
    letters = [llm.tokenizer.encode(letter, bos=False)[0] for letter in "QZXVYWKJ"]
    return {"temperature": 0, "max_tokens": 5, "logit_bias": dict.fromkeys(letters, 90.0)}


@pytest.fixture
def talk(live: Live, llm: LLM, http: httpx2.Client, fields: dict[str, Any]) -> Talk:
    return Talk(live, llm, http, fields)


class Talk:
    """Says things in sessions."""

    def __init__(self, live: Live, llm: LLM, http: httpx2.Client, fields: dict[str, Any]) -> None:
        self.live, self.llm, self.http, self.fields = live, llm, http, fields

    def post(
        self,
        name: str | None,
        *said: str,
        system: str | None = None,
        tools: list[Tool] | None = None,
        **body: Any,
    ) -> httpx2.Response:
        """said: texts, the user's first and last."""
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        if tools is not None:
            told = [{"type": "function", "function": dataclasses.asdict(one)} for one in tools]
            body["tools"] = told
        if name is not None:
            body["session_id"] = name
        bias = {str(id): value for id, value in self.fields["logit_bias"].items()}
        body = {"messages": messages, **self.fields, "logit_bias": bias, **body}
        return self.http.post("/v1/chat/completions", json=body)

    def say(self, name: str | None, *said: str, **body: Any) -> tuple[str, int, int]:
        """Return the answer, its prompt's tokens, and how many of those were read."""
        answer = self.post(name, *said, **body)
        assert answer.status_code == 200, answer.text
        made = answer.json()
        usage = made["usage"]
        read = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        return made["choices"][0]["message"]["content"], usage["prompt_tokens"], read

    def ids(self, name: str) -> list[int]:
        store = self.live.service.store
        assert store is not None
        with store.open(name, self.live.service.fingerprint) as session:
            return list(session.ids())

    def check(
        self, name: str, first: str, words: str | None, *, base: tuple[int, ...] = ()
    ) -> None:
        """The session's last answer followed these words, and is what they alone lead to.

        base: ids that were read before the first message.
        """
        system = [{"role": "system", "content": words}] if words else []
        start = self.llm.chat_format.ids([*system, {"role": "user", "content": first}])
        start = [*base, *start[1:]] if base else start
        ids = self.ids(name)
        assert ids[: len(start)] == start
        assert list(self.llm.generate(ids[:-5], **self.fields).ids) == ids[-5:]

    def tree(self, name: str) -> list[tuple[int, int | None]]:
        turns = self.http.get(f"/v1/sessions/{name}/turns").json()["data"]
        return [(turn["id"], turn["parent"]) for turn in turns]


def test_words_of_a_later_turn_are_read(talk: Talk) -> None:
    talk.say("later", "one", system=BRIEF)
    for body, words in (
        ({}, BRIEF),
        ({"system": KIND}, KIND),
        ({}, KIND),
        ({"tools": [LOOK]}, words_of([LOOK], KIND)),
        ({}, words_of([LOOK], KIND)),
        ({"tool_choice": "none"}, words_of([LOOK], KIND)),
        ({"system": BRIEF}, words_of([LOOK], BRIEF)),
        ({"tools": [SING, LOOK]}, words_of([SING, LOOK], BRIEF)),
        ({"system": ""}, words_of([SING, LOOK])),
        ({}, words_of([SING, LOOK])),
        ({"tools": []}, None),
        ({}, None),
        ({"system": BRIEF}, BRIEF),
    ):
        talk.say("later", "more", **body)
        talk.check("later", "one", words)
    # All as one conversation, from its beginning.
    _, prompt, read = talk.say("later", "and this", system=KIND, tools=[LOOK])
    assert prompt == len(talk.ids("later")) - 5 and read < prompt


def test_words_that_are_sent_again_cost_nothing(talk: Talk) -> None:
    talk.say("same", "one", system=BRIEF, tools=[LOOK])
    *_, read = talk.say("same", "two")
    assert talk.say("same", "two", system=BRIEF, tools=[LOOK])[2] == read
    assert talk.say("same", "two", tools=[LOOK])[2] == read
    assert [parent for _, parent in talk.tree("same")] == [None, 1, 2, 3]
    talk.say("stripped", "one", system=BRIEF)
    assert talk.say("stripped", "two", system=f" {BRIEF}\n")[2] == read


def test_a_whole_conversation_under_other_words(talk: Talk) -> None:
    first, *_ = talk.say("whole", "one", system=BRIEF)
    second, *_ = talk.say("whole", "one", first, "two", system=KIND)
    talk.check("whole", "one", KIND)
    talk.say("whole", "one", first, "two", second, "three")  # the session's words, left out
    talk.check("whole", "one", KIND)
    edited, prompt, _ = talk.say("whole", "one", first, "edited")
    talk.check("whole", "one", KIND)
    assert talk.say(None, "one", first, "edited", system=KIND)[:2] == (edited, prompt)


def test_undo_after_reading_again(talk: Talk) -> None:
    """The branch under the old words is there; undone turns of the new one are as if never said."""
    for message in ("one", "two"):
        talk.say("undone", message, system=BRIEF)
    talk.say("undone", "three", system=KIND)
    assert talk.tree("undone") == [(1, None), (2, 1), (3, None), (4, 3), (5, 4)]
    rewind = "/v1/sessions/undone/rewind"
    assert talk.http.post(rewind, json={"turns": 2}).json()["head"] == 3
    again, prompt, _ = talk.say("undone", "other")
    talk.check("undone", "one", KIND)
    # Back to the old branch, whose words are the session's no more: they hold as they are sent.
    assert talk.http.post(rewind, json={"to": 2}).json()["head"] == 2
    _, _, read = talk.say("undone", "three", system=BRIEF)
    talk.check("undone", "one", BRIEF)
    assert read < 40
    # Without the detour.
    first, *_ = talk.say("direct", "one", system=BRIEF)
    assert talk.say("direct", first and "other", system=KIND)[:2] == (again, prompt)


def test_fork_and_export_of_the_branch_read_again(talk: Talk) -> None:
    for message in ("one", "two"):
        talk.say("branch", message, system=BRIEF, tools=[LOOK])
    talk.say("branch", "three", system=KIND)
    words = words_of([LOOK], KIND)
    ids = talk.ids("branch")
    assert talk.http.post("/v1/sessions/branch/fork", json={"name": "twin"}).json()["turns"] == 3
    inner = {"name": "inner", "at": 4}  # a turn that was read again and has no state of its own
    assert talk.http.post("/v1/sessions/branch/fork", json=inner).json()["turns"] == 2
    assert talk.http.post("/v1/states", json={"name": "branch", "session": "branch"}).is_success
    assert talk.http.post("/v1/states/branch/fork", json={"name": "carried"}).is_success
    answers = set()
    for name in ("branch", "twin", "carried"):
        assert talk.ids(name) == ids
        answers.add(talk.say(name, "four"))
        talk.check(name, "one", words)
    assert len(answers) == 1
    talk.say("inner", "four")
    talk.check("inner", "one", words)


@pytest.mark.parametrize("body", ["system", "tools", "both", "neither"])
def test_words_after_a_state_of_a_conversation(talk: Talk, body: str) -> None:
    """A state file hides the session's settings; what it was read under is told from its ids."""
    talk.say("origin", "one", system=BRIEF, tools=[LOOK])
    name = f"after-{body}"
    talk.http.post("/v1/states", json={"name": name, "session": "origin"})
    talk.http.post(f"/v1/states/{name}/fork", json={"name": name})
    said: dict[str, Any] = {
        "system": {"system": KIND, "tools": None},
        "tools": {"tools": [LOOK]},
        "both": {"system": KIND, "tools": [SING]},
        "neither": {},
    }[body]
    words = {
        "system": words_of([LOOK], KIND),
        "tools": words_of([LOOK], BRIEF),
        "both": words_of([SING], KIND),
        "neither": words_of([LOOK], BRIEF),
    }[body]
    talk.say(name, "two", **said)
    talk.check(name, "one", words)
    # Straight after the state, too, which stays as it is.
    answer, prompt, _ = talk.say(None, "two", state=name, **said)
    assert prompt == len(talk.ids(name)) - 5
    ids = talk.ids(name)
    assert talk.llm.tokenizer.decode(ids[prompt:]) == answer
    # A response in it has words of its own, and the session's stay.
    respond = {"conversation": name, "input": "three", "max_output_tokens": 5, "temperature": 0}
    assert talk.http.post("/v1/responses", json=respond).status_code == 200
    talk.say(name, "four")
    talk.check(name, "one", words)


def test_a_session_that_begins_with_a_text(talk: Talk) -> None:
    """The text lies before everything, and other words are read after it."""
    talk.http.post("/v1/states", json={"name": "text", "text": "class Rules: pass\n"})
    talk.http.post("/v1/states/text/fork", json={"name": "text"})
    base = tuple(talk.llm.tokenizer.encode("class Rules: pass\n"))

    def session() -> tuple[int, ...]:
        """All ids; those of the text came without."""
        return tuple(talk.ids("text"))

    for body, words in (
        ({}, None),
        ({"system": BRIEF}, BRIEF),
        ({}, BRIEF),
        ({"tools": [LOOK]}, words_of([LOOK], BRIEF)),
        ({"system": "", "tools": []}, None),
    ):
        _, prompt, _ = talk.say("text", "one", **body)
        known = session()
        system = [{"role": "system", "content": words}] if words else []
        first = talk.llm.chat_format.ids([*system, {"role": "user", "content": "one"}])[1:]
        start = len(base) if known[: len(base)] == base else 0
        assert known[start : start + len(first)] == tuple(first)
        ids = [*base, *known[start:]]
        assert prompt == len(ids) - 5
        assert list(talk.llm.generate(ids[:-5], **talk.fields).ids) == ids[-5:]
    # Whole conversations after the state itself: all of it follows the text.
    answer, prompt, _ = talk.say(None, "one", "QXZ", "two", state="text", system=KIND)
    roles = [("system", KIND), ("user", "one"), ("assistant", "QXZ"), ("user", "two")]
    messages = [{"role": role, "content": content} for role, content in roles]
    ids = [*base, *talk.llm.chat_format.ids(messages)[1:]]
    assert prompt == len(ids) and talk.llm.generate(ids, **talk.fields).text == answer


def test_reading_again_where_ids_are_missing(talk: Talk) -> None:
    """A turn that is known as text only goes on as it is, and under no other words."""
    talk.say("bare", "one", system=BRIEF)
    store = talk.live.service.store
    assert store is not None
    with store.folder.index.transaction() as index:
        row = index.execute("SELECT id FROM session WHERE name = 'bare'").fetchone()[0]
        index.execute(
            "UPDATE turn SET ids = x'' WHERE id IN (SELECT turn FROM member WHERE session = ?)",
            (row,),
        )
    refused = talk.post("bare", "two", system=KIND)
    assert refused.status_code == 400 and "known as text only" in refused.text
    assert refused.json()["error"]["param"] == "messages"
    assert talk.tree("bare") == [(1, None)]


def test_what_is_read_again_has_the_prompts_bound(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for message in ("one " * 20, "two " * 20):
        talk.say("bound", message, system=BRIEF)
    limits = dataclasses.replace(talk.live.service.limits, max_prompt_tokens=60)
    monkeypatch.setattr(talk.live.service, "limits", limits)
    talk.say("bound", "three")  # only this is read
    refused = talk.post("bound", "four", system=KIND)
    assert (
        refused.status_code == 400 and refused.json()["error"]["code"] == "context_length_exceeded"
    )
    assert talk.http.get("/v1/sessions/bound").json()["head"] == 3
    talk.say("bound", "four")
    talk.check("bound", "one " * 20, BRIEF)


def test_what_is_read_again_counts_for_the_quota(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new branch comes whole or not at all; the old one stays."""
    for message in ("one", "two"):
        talk.say("quota", message, system=BRIEF)
    before = talk.tree("quota")
    store = talk.live.service.store
    assert store is not None
    used = store.show("quota").nbytes
    monkeypatch.setattr(store.folder, "quota_bytes", used + 100)
    refused = talk.post("quota", "three", system=KIND)
    assert refused.status_code == 507 and talk.tree("quota") == before
    monkeypatch.undo()
    assert talk.http.get("/v1/sessions/quota").json()["head"] == 2
    talk.say("quota", "three")
    talk.check("quota", "one", BRIEF)
    assert store.check() == ()


def test_a_refusal_of_the_engine_leaves_the_words_as_they_were(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk.say("kept", "one", system=BRIEF)
    with monkeypatch.context() as patch:
        patch.setattr(talk.live.service, "draining", True)
        assert talk.post("kept", "two", system=KIND).status_code == 503
    bad = talk.post("kept", "two", system=KIND, tools=[LOOK], tool_choice={"type": "function"})
    assert bad.status_code == 400
    talk.say("kept", "two")
    talk.check("kept", "one", BRIEF)
    assert len(talk.tree("kept")) == 2
