"""Chains of /v1/responses: instructions and tools are each request's own, all else belongs to the
chain, and only what is new is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from griffin.conversation.turns import split_exchange
from griffin.llm import LLM
from griffin.server.conversations.asked import words_of
from griffin.server.protocol import Tool
from tests.support.live_server import Live, serving

ANN, BEN = "You are Ann, who plans.", "You are Ben. " * 8
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}
SING = {"type": "function", "name": "sing", "description": "Sing.", "parameters": {}}
# Letters alone: a tool's grammar, which lets no half of a character through, changes nothing then.
FIELDS: dict[str, Any] = {"temperature": 0, "max_tokens": 5, "logit_bias": {}}


@pytest.fixture(scope="module")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    letters = [llm.tokenizer.encode(letter, bos=False)[0] for letter in "QZXVYWKJ"]
    FIELDS["logit_bias"].update(dict.fromkeys(letters, 90.0))
    # No prefix cache: what is not read again is what the chain knows.
    with serving(llm, tmp_path_factory.mktemp("chains") / "store", cache_bytes=0) as live:
        yield live


@pytest.fixture
def http(live: Live) -> Iterator[httpx2.Client]:
    with live.http() as http:
        yield http


class Made:
    """A response. text: that it says. read: tokens that were read for it. prompt: of its prompt."""

    def __init__(self, answer: httpx2.Response) -> None:
        assert answer.status_code == 200, answer.text
        self.body: dict[str, Any] = answer.json()
        self.id: str = self.body["id"]
        usage = self.body["usage"]
        self.prompt: int = usage["input_tokens"]
        self.cached: int = usage["input_tokens_details"]["cached_tokens"]
        self.read = self.prompt - self.cached
        source = "session" if self.cached else "none"
        assert answer.headers["x-griffin-state"] == f"{source}; cached={self.cached}"

    @property
    def text(self) -> str:
        [item] = self.body["output"]
        return item["content"][0]["text"]


def respond(http: httpx2.Client, input: Any, **body: Any) -> Made:
    bias = {str(id): value for id, value in FIELDS["logit_bias"].items()}
    fields = {"max_output_tokens": 5, "temperature": 0, "logit_bias": bias}
    return Made(http.post("/v1/responses", json={"input": input} | fields | body))


def said(llm: LLM, *talk: str, words: str | None = None) -> list[int]:
    """Return the ids of a conversation of texts, the user's first and last."""
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(talk)
    ]
    return llm.chat_format.ids(
        [*([{"role": "system", "content": words}] if words else []), *messages]
    )


def ids_of(live: Live, id: str) -> list[int]:
    """Return all ids of the chain that ends with a response."""
    store = live.service.store
    assert store is not None
    kept = store.within("responses")
    tree = {turn.number: turn for turn in kept.turns(id)}
    ids: list[int] = []
    number = kept.show(id).head
    while number is not None:
        ids, number = [*tree[number].ids, *ids], tree[number].parent
    return ids


def check_prompt(live: Live, llm: LLM, made: Made, words: str | None, message: str) -> None:
    """The answer followed these words, and is what they alone would have led to."""
    ids = ids_of(live, made.id)
    prompt = ids[: made.prompt]
    start = said(llm, message, words=words)
    assert prompt[: len(start)] == start
    alone = llm.generate(prompt, **FIELDS)
    assert alone.text == made.text and list(alone.ids) == ids[made.prompt :]


def test_instructions_and_tools_are_each_requests_own(live: Live, llm: LLM, http) -> None:
    first = respond(http, "one", instructions=ANN)
    look = [Tool("look", "", {"type": "object"}, strict=False)]
    for body, words in (
        ({}, None),
        ({"instructions": ANN}, ANN),
        ({"instructions": BEN}, BEN),
        ({"instructions": ""}, None),
        ({"tools": [LOOK]}, words_of(look)),
        ({"instructions": BEN, "tools": [LOOK]}, words_of(look, BEN)),
        ({"instructions": BEN, "tools": []}, BEN),
    ):
        for after in ({"previous_response_id": first.id}, {}):
            made = respond(http, "two" if after else "one", **after, **body)
            check_prompt(live, llm, made, words, "one")
    again = respond(http, "two", previous_response_id=first.id, instructions=ANN)
    assert again.read == 1 + len(llm.chat_format.turn_ids({"role": "user", "content": "two"}))


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["previous_response_id", "conversation"])
def test_two_agents_that_alternate_read_only_what_is_new(
    live: Live, llm: LLM, http: httpx2.Client, way: str
) -> None:
    agents = [
        {"instructions": ANN, "tools": [LOOK]},
        {"instructions": BEN, "tools": [SING, LOOK]},
        {"instructions": None},
    ]
    last: str | None = None
    known = dict.fromkeys(range(3), 0)  # what each has read, up to the last token of its answer
    for number in range(20):
        agent = number % (2 if number < 16 else 3)
        on = {way: "two-agents"} if way == "conversation" else {way: last}
        made = respond(http, f"message {number}", **on, **agents[agent])
        assert made.cached == known[agent], number
        known[agent] = made.prompt + made.body["usage"]["output_tokens"] - 1
        last = made.id
        ids = ids_of(live, made.id)
        alone = llm.generate(ids[: made.prompt], **FIELDS)
        assert list(alone.ids) == ids[made.prompt :]
    assert http.get(f"/v1/responses/{last}").json()["id"] == last


def test_items_of_the_input_stay(live: Live, llm: LLM, http: httpx2.Client) -> None:
    items = [{"role": "developer", "content": "Owls only."}, {"role": "user", "content": "one"}]
    first = respond(http, items, instructions=ANN)
    check_prompt(live, llm, first, f"{ANN}\n\nOwls only.", "one")
    second = respond(http, "two", previous_response_id=first.id, instructions=BEN)
    check_prompt(live, llm, second, f"{BEN.strip()} \n\nOwls only.", "one")
    third = respond(http, "three", previous_response_id=second.id)
    check_prompt(live, llm, third, "Owls only.", "one")
    later = [{"role": "system", "content": "And bats."}, {"role": "user", "content": "four"}]
    fourth = respond(http, later, previous_response_id=third.id)
    check_prompt(live, llm, fourth, "Owls only.", "one")
    read = llm.tokenizer.decode(ids_of(live, fourth.id))
    assert "And bats.\n\nfour" in read and "Ben" not in read and "Ann" not in read
    fifth = respond(http, "five", previous_response_id=fourth.id, instructions=ANN)
    check_prompt(live, llm, fifth, f"{ANN}\n\nOwls only.", "one")
    assert "And bats.\n\nfour" in llm.tokenizer.decode(ids_of(live, fifth.id))


@pytest.mark.parametrize("way", ["previous_response_id", "conversation", ""])
def test_every_new_item_is_read(live: Live, llm: LLM, http: httpx2.Client, way: str) -> None:
    on, begun = {}, []
    if way:
        first = respond(http, "one", conversation="items" if way == "conversation" else None)
        on = {way: "items" if way == "conversation" else first.id}
        begun = ids_of(live, first.id)
    roles = ("user", "assistant", "user")
    texts = ("two", "mine", "three")
    items = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    made = respond(http, items, **on)
    store = live.service.store
    assert store is not None
    turns = store.within("responses").turns(made.id)
    texts_kept = [split_exchange(turn.text or "") for turn in turns]
    assert texts_kept[-2:] == [("two", "mine"), ("three", made.text)]
    assert len(turns) == (3 if way else 2)
    rest = said(llm, *texts)[1:]
    if way:
        end = llm.tokenizer.end_of_turn_id
        between = llm.chat_format.turn_ids({"role": "user", "content": "."}, closed=True)[0]
        closed = begun[-1] == end
        rest = [*([] if closed else [end]), between, *rest]
    else:
        rest = said(llm, *texts)
    assert ids_of(live, made.id)[: made.prompt] == [*begun, *rest]


def test_an_answer_in_a_conversation_can_be_fetched_and_gone_on_from(
    live: Live, llm: LLM, http: httpx2.Client
) -> None:
    first = respond(http, "one", conversation="fetched", instructions=ANN)
    second = respond(http, "two", conversation="fetched", instructions=ANN)
    for made in (first, second):
        assert http.get(f"/v1/responses/{made.id}").json()["output"] == made.body["output"]
    branch = respond(http, "other", previous_response_id=first.id, instructions=ANN)
    check_prompt(live, llm, branch, ANN, "one")
    assert branch.cached and http.get("/v1/sessions/fetched").json()["turns"] == 2
    # The conversation does not depend on the responses, nor they on it.
    http.delete(f"/v1/responses/{second.id}")
    third = respond(http, "three", conversation="fetched", instructions=ANN)
    assert third.cached > second.cached
    http.delete("/v1/sessions/fetched")
    assert respond(http, "x", previous_response_id=first.id, instructions=ANN).cached


def test_what_is_not_stored(live: Live, http: httpx2.Client) -> None:
    assert live.service.store is not None
    responses = live.service.store.within("responses")
    before = {info.name for info in responses.list()}
    first = respond(http, "one", store=False, conversation="unstored")
    second = respond(http, "two", store=False, conversation="unstored")
    assert second.cached and http.get("/v1/sessions/unstored").json()["turns"] == 2
    alone = respond(http, "one", store=False)
    for made in (first, second, alone):
        assert http.get(f"/v1/responses/{made.id}").status_code == 404
        after = {"input": "x", "previous_response_id": made.id}
        assert http.post("/v1/responses", json=after).status_code == 404
    kept = respond(http, "one")
    gone = respond(http, "two", previous_response_id=kept.id, store=False)
    assert gone.cached and http.get(f"/v1/responses/{gone.id}").status_code == 404
    until = time.monotonic() + 60
    while {info.name for info in responses.list()} != before | {kept.id}:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "resp_x", "conversation": "c"},
        {"previous_response_id": "resp_x", "state": "s"},
        {"conversation": "c", "state": "s"},
    ],
)
def test_two_things_to_go_on_from(http: httpx2.Client, body: dict[str, str]) -> None:
    answer = http.post("/v1/responses", json={"input": "x"} | body)
    assert answer.status_code == 400, answer.text


def test_a_conversation_that_sessions_and_responses_share(
    live: Live, llm: LLM, http: httpx2.Client
) -> None:
    """A chat's system text is the session's and stays; instructions are each request's own."""
    bias = {str(id): value for id, value in FIELDS["logit_bias"].items()}
    chat = {"session_id": "shared", **FIELDS, "logit_bias": bias}
    system = {"role": "system", "content": "Owls only."}
    one = {"role": "user", "content": "one"}
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    http.post("/v1/chat/completions", json=chat | {"messages": [system, one], "tools": tools})
    second = respond(http, "two", conversation="shared", instructions=ANN)
    check_prompt(live, llm, second, f"{ANN}\n\nOwls only.", "one")
    three = {"messages": [{"role": "user", "content": "three"}]}
    made = http.post("/v1/chat/completions", json=chat | three).json()
    assert live.service.store is not None
    look = [Tool("look", "", {"type": "object"}, strict=False)]
    start = said(llm, "one", words=words_of(look, "Owls only."))
    with live.service.store.open("shared", live.service.fingerprint) as session:
        ids = list(session.ids())
    assert ids[: len(start)] == start
    answer = llm.generate(ids[: made["usage"]["prompt_tokens"]], **FIELDS)
    assert answer.text == made["choices"][0]["message"]["content"]
