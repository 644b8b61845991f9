"""A hint makes an answer fast, never different: with one and without, in any company, a request is
answered alike."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from griffin.conversation import fingerprint_of, split_exchange
from griffin.llm import LLM
from griffin.server.http.keys import Keys
from griffin.sessions import Store
from tests.support.live_server import ALICE, BOB, Live, as_, endless, serving

HEADERS = ("X-Session-Id", "X-OpenWebUI-Chat-Id", "X-Conversation-Id")
# Two sessions that everybody uses, and values that are no names.
VALUES = ("s", "s", "t", "local:s", "../s", "", "s" * 200)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("hinted") / "store"
    with serving(llm, folder, keys=Keys([ALICE, BOB])) as live:
        yield live


@pytest.fixture(scope="module")
def alone(llm: LLM) -> Iterator[Live]:
    """A server that remembers nothing at all."""
    with serving(llm, cache_bytes=0) as live:
        yield live


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def said(answer: dict[str, Any]) -> list[Any]:
    """Return what the choices of an answer say, and how they end."""
    choices = []
    for one in answer["choices"]:
        message = one.get("message", {})
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        text = message.get("content") if message else one["text"]
        choices.append((one["index"], text, calls, one["finish_reason"]))
    return [choices, answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]]


def ask(http: httpx2.Client, path: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
    answer = http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    if path == "/v1/responses":
        texts = [part["text"] for item in made["output"] for part in item["content"]]
        return [texts, made["status"], made["usage"]["input_tokens"]]
    return said(made)


def streamed(
    http: httpx2.Client, path: str, body: dict[str, Any], headers: dict[str, str], most: int
) -> str:
    """Return a streamed chat's text; the client leaves after so many events."""
    text = ""
    with http.stream("POST", path, json=body | {"stream": True}, headers=headers) as answer:
        assert answer.status_code == 200
        for number, line in enumerate(answer.iter_lines()):
            if number >= most:
                break
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
    return text


class Programs:
    """Requests as careless programs send them: conversations that go on, are edited, shortened,
    begun anew under other words, all under the same few names."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.talks: list[list[dict[str, str]]] = [[]]

    def request(self) -> tuple[str, dict[str, Any], list[dict[str, str]]]:
        """Return a path, a body, and the conversation that its answer goes on with."""
        chance = self.random
        talk = chance.choice(self.talks)
        if chance.random() < 0.2 or len(talk) > 12:
            talk = talk[2:] if chance.random() < 0.5 else []
        elif talk and chance.random() < 0.2:  # an edit
            talk = talk[: 2 * chance.randrange(len(talk) // 2)]
        talk = [*talk, user(chance.choice(("one", "two", "three " * 9, "Ä", "  four ")))]
        sampling: dict[str, Any] = {"seed": chance.randrange(3), "max_tokens": chance.randint(1, 6)}
        sampling["temperature"] = chance.choice((0, 1.0))
        if chance.random() < 0.3:
            sampling["repetition_penalty"] = 1.5
        kind = chance.random()
        if kind < 0.1:
            prompt = [message["content"] for message in talk[-2:]]
            return "/v1/completions", {"prompt": prompt, "n": 2, **sampling}, []
        first = chance.choice(([], [{"role": "system", "content": "Be brief."}]))
        if kind < 0.2:
            sampling["max_output_tokens"] = sampling.pop("max_tokens")
            store = chance.random() < 0.5
            body = {"input": talk, "store": store, "instructions": chance.choice(("", "Owl."))}
            return "/v1/responses", body | sampling, []
        body = {"messages": [*first, *talk], "n": chance.choice((1, 1, 1, 3)), **sampling}
        if chance.random() < 0.3:
            body |= {"tools": [TOOL], "tool_choice": chance.choice(("auto", "none", "required"))}
            body["max_tokens"] += 8
        return "/v1/chat/completions", body, talk

    def headers(self) -> dict[str, str]:
        chance = self.random
        names = chance.sample(HEADERS, chance.choice((0, 1, 1, 1, 2, 3)))
        return {name: chance.choice(VALUES) for name in names}


def sweep(live: Live, alone: Live, seed: int, requests: int) -> None:
    programs = Programs(seed)
    spared = 0
    with (
        alone.http() as plain,
        as_(live, ALICE) as alice,
        as_(live, BOB) as bob,
    ):
        for _ in range(requests):
            path, body, talk = programs.request()
            http, headers = programs.random.choice((alice, alice, bob)), programs.headers()
            expected = ask(plain, path, body, {})
            chat = path == "/v1/chat/completions"
            if chat and body["n"] == 1 and "tools" not in body and programs.random.random() < 0.3:
                [(_, text, *_)] = expected[0]
                cut = programs.random.choice((3, 99))
                heard = streamed(http, path, body, headers, cut)
                assert text.startswith(heard) and (cut == 3 or heard == text), (body, headers)
            else:
                assert ask(http, path, body, headers) == expected, (body, headers)
            if chat and (answer := expected[0][0][1]) is not None:
                programs.talks.append([*talk, {"role": "assistant", "content": answer}])
                del programs.talks[:-6]
        assert live.service.store is not None
        names = {info.name for info in live.service.store.list()}
        for key in (alice, bob):
            for name in (one["id"] for one in key.get("/v1/sessions").json()["data"]):
                turns = key.get(f"/v1/sessions/{name}/turns").json()["data"]
                spared += len(turns)
        assert not names and spared  # each key's own, and nobody's under no key
    assert live.idle() and not live.service.holding._held


@pytest.mark.sweep
@pytest.mark.thorough
@pytest.mark.parametrize("seed", [1, 2])
def test_random_hints_change_nothing(live: Live, alone: Live, seed: int) -> None:
    sweep(live, alone, seed, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_random_hints_change_nothing_in_long_sequences(live: Live, alone: Live, seed: int) -> None:
    sweep(live, alone, seed, 300)


@pytest.mark.thorough
def test_many_at_once_under_one_name(live: Live, alone: Live) -> None:
    """None is refused, and each answer is in the session."""
    with alone.http() as plain, as_(live, ALICE, **{"x-session-id": "crowd"}) as http:
        before = [user("one"), {"role": "assistant", "content": "QX"}]
        talks = [[*before[: 2 * (n % 2)], user(f"message {n % 40}")] for n in range(64)]
        bodies = [{"messages": talk, "max_tokens": 5, "temperature": 0} for talk in talks]
        path = "/v1/chat/completions"
        expected = [ask(plain, path, body, {}) for body in bodies]
        with ThreadPoolExecutor(64) as pool:
            heard = list(pool.map(lambda body: ask(http, path, body, {}), bodies))
        assert heard == expected
        turns = http.get("/v1/sessions/crowd/turns").json()["data"]
    parents = {turn["parent"] for turn in turns}
    kept = [split_exchange(turn["text"]) for turn in turns if turn["id"] not in parents]
    wanted = [
        (talk[-1]["content"], answer[0][0][1]) for talk, answer in zip(talks, expected, strict=True)
    ]
    assert sorted(kept) == sorted(set(wanted))  # the same answer again is the turn that is there


def test_a_session_is_looked_after_while_hints_come(live: Live) -> None:
    """Who goes back in it, forks it or names it waits for a hint's moment, and no answer is
    lost."""
    said, name = {"max_tokens": 3, "temperature": 0}, "/v1/sessions/kept"
    with as_(live, ALICE) as http:

        def hint(number: int) -> int:
            body = said | {"messages": [user(f"message {number}")]}
            headers = {"x-session-id": "kept"}
            return http.post("/v1/chat/completions", json=body, headers=headers).status_code

        def manage(number: int) -> int:
            if number % 3 == 0:
                return http.post(f"{name}/rewind", json={"to": 1}).status_code
            if number % 3 == 1:
                return http.post(f"{name}/fork", json={"name": f"fork-{number}"}).status_code
            return http.patch(name, json={"title": str(number)}).status_code

        assert hint(0) == 200
        with ThreadPoolExecutor(12) as pool:
            hints = [pool.submit(hint, number) for number in range(1, 40)]
            managed = [pool.submit(manage, number) for number in range(40)]
            assert {one.result() for one in [*hints, *managed]} == {200}
        turns = http.get(f"{name}/turns").json()["data"]
    messages = sorted(split_exchange(turn["text"])[0] for turn in turns)
    assert messages == sorted(f"message {number}" for number in range(40))


def test_several_answers_of_one_request_are_branches(live: Live) -> None:
    with as_(live, ALICE, **{"x-conversation-id": "columns"}) as http:
        body = {"messages": [user("one")], "n": 3, "max_tokens": 5, "seed": 3}
        choices, *_ = ask(http, "/v1/chat/completions", body, {})
        turns = http.get("/v1/sessions/columns/turns").json()["data"]
    assert [turn["parent"] for turn in turns] == [None] * 3
    assert [split_exchange(turn["text"])[1] for turn in turns] == [one[1] for one in choices]


def test_an_answer_that_was_left_is_kept_as_far_as_it_was_said(live: Live, llm: LLM) -> None:
    body = {"messages": [user("one")], "max_tokens": 5000, "temperature": 0, **endless(llm)}
    with as_(live, ALICE) as http:
        streamed(http, "/v1/chat/completions", body, {"x-session-id": "left"}, 8)
        assert live.idle()
        [turn] = http.get("/v1/sessions/left/turns").json()["data"]
    assert turn["text"].startswith("> one\n\n") and turn["tokens"] < 5000


# Sessions that cannot be used now.


@pytest.fixture
def hinted(llm: LLM, tmp_path: Path) -> Iterator[Live]:
    with serving(llm, tmp_path / "store") as live:
        yield live


def plainly(llm: LLM) -> dict[str, Any]:
    """Return a request whose answers have letters that no merge takes: of their text only the ids
    that were chosen can be made."""
    bias = {str(llm.tokenizer.encode(letter, bos=False)[0]): 90 for letter in "QZXV"}
    body = {"messages": [user("one")], "max_tokens": 5, "temperature": 0, "logit_bias": bias}
    assert ids_of(llm, "QZXVVXZQ") == [ids_of(llm, letter)[0] for letter in "QZXVVXZQ"]
    return body


def ids_of(llm: LLM, text: str) -> list[int]:
    return llm.tokenizer.encode(text, bos=False)


def check_answered(live: Live, llm: LLM, *, keeps: int = 0, spared: bool = False) -> None:
    """A conversation of two turns is answered under a hint as without one.

    keeps: turns that it leaves behind. spared: it goes on from the session's first turn.
    """
    store, body = live.service.store, plainly(llm)
    assert store is not None
    before = len(store.turns("s"))
    with live.http() as http:
        answer = ask(http, "/v1/chat/completions", body, {})[0][0][1]
        body["messages"] += [{"role": "assistant", "content": answer}, user("two")]
        plain = ask(http, "/v1/chat/completions", body, {})
        hinted = http.post("/v1/chat/completions", json=body, headers={"x-session-id": "s"})
        assert hinted.status_code == 200 and said(hinted.json()) == plain
        assert hinted.headers["x-griffin-state"].startswith("session") == spared
    assert len(store.turns("s")) == before + keeps


def begin_with(live: Live, llm: LLM) -> None:
    """Say in a session what `check_answered` says."""
    with live.http() as http:
        body = plainly(llm) | {"session_id": "s"}
        assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_a_session_that_knows_the_beginning(hinted: Live, llm: LLM) -> None:
    begin_with(hinted, llm)
    check_answered(hinted, llm, keeps=1, spared=True)


def test_a_session_that_another_process_has(hinted: Live, llm: LLM, tmp_path: Path) -> None:
    begin_with(hinted, llm)
    with closing(Store(tmp_path / "store")) as other, other.open("s", fingerprint_of(llm)):
        check_answered(hinted, llm)


def test_a_session_that_is_answering(hinted: Live, llm: LLM) -> None:
    """A hint does not wait for it."""
    body = plainly(llm) | {"max_tokens": 20_000, "session_id": "s", "stream": True}
    begin_with(hinted, llm)
    with hinted.http() as http:
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            check_answered(hinted, llm)
            assert hinted.service.engine.stats().busy
        assert hinted.idle()


@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_session_that_is_torn(hinted: Live, llm: LLM, tmp_path: Path, how: str) -> None:
    begin_with(hinted, llm)
    for blob in (tmp_path / "store" / "blobs").iterdir():
        if how == "cut":
            blob.write_bytes(blob.read_bytes()[:-9])
        else:
            blob.unlink()
    check_answered(hinted, llm, keeps=1)


def test_a_full_store(hinted: Live, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_with(hinted, llm)
    assert hinted.service.store is not None
    monkeypatch.setattr(hinted.service.store.folder, "quota_bytes", 10)
    check_answered(hinted, llm, spared=True)


def test_a_session_of_another_model(hinted: Live, llm: LLM) -> None:
    store, mark = hinted.service.store, replace(fingerprint_of(llm), weights="0" * 64)
    assert store is not None
    store.create("s", fingerprint=mark, config=llm.model.config).close()
    check_answered(hinted, llm)


def test_a_session_that_a_state_file_began(hinted: Live, llm: LLM) -> None:
    """What was read before the first message is nothing that this request says."""
    with hinted.http() as http:
        http.post("/v1/states", json={"name": "rules", "text": "class Rules: pass\n"})
        http.post("/v1/states/rules/fork", json={"name": "s"})
        check_answered(hinted, llm, keeps=2)
        assert http.post("/v1/sessions/s/append", json={"text": "more"}).status_code == 200
        check_answered(hinted, llm)  # both turns are there by now
