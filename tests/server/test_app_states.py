"""States over HTTP: saved, gone on from, and seen only when they are whole."""

from __future__ import annotations

from griffin.server import errors
from griffin.server.endpoints.states import route as states
from griffin.server.errors import ApiError
from tests.support.live_server import NAME
from tests.support.session_talk import say


def test_append_and_saved_states(live, llm, http):
    done = http.post(
        "/v1/states", json={"name": "rules", "text": "class Rules: pass\n", "title": "R"}
    ).json()
    assert done["tokens"] == len(llm.tokenizer.encode("class Rules: pass\n"))
    assert http.post("/v1/states", json={"name": "rules", "text": "x"}).status_code == 409
    raw = live.openai().chat.completions.with_raw_response.create(
        model=NAME,
        messages=[{"role": "user", "content": "one"}],
        max_tokens=6,
        seed=1,
        extra_body={"state": "rules"},
    )
    ids = [
        *llm.tokenizer.encode("class Rules: pass\n"),
        *llm.chat_format.ids([{"role": "user", "content": "one"}])[1:],
    ]
    alone = llm.generate(ids, seed=1, max_tokens=6)
    assert raw.parse().choices[0].message.content == alone.text
    assert raw.headers["x-griffin-state"] == f"session; cached={done['tokens'] - 1}"
    # A session that begins from it, and one that reads the same by itself.
    forked = http.post("/v1/states/rules/fork", json={"name": "from-rules"}).json()
    assert forked["tokens"] == done["tokens"]
    assert say(live, "one", session="from-rules")[0] == alone.text
    http.post("/v1/sessions", json={"name": "reads"})
    read = http.post("/v1/sessions/reads/append", json={"text": "class Rules: pass\n"}).json()
    assert read["tokens_read"] == read["tokens_seen"] == done["tokens"]
    http.post("/v1/states", json={"name": "copy", "session": "reads"})
    assert {s["id"] for s in http.get("/v1/states").json()["data"]} >= {"rules", "copy"}
    assert http.delete("/v1/states/rules").json()["object"] == "state.deleted"
    assert http.get("/v1/states/rules").status_code == 404
    assert say(live, "two", session="from-rules")[1].startswith("session;")


def test_a_state_of_a_turn(live, llm, http):
    for message in ("one", "two"):
        say(live, message, session="stages")
    turns = http.get("/v1/sessions/stages/turns").json()["data"]
    saved = http.post("/v1/states", json={"name": "stage-1", "session": "stages", "at": 1}).json()
    assert saved["tokens"] == turns[0]["tokens"] < turns[1]["tokens"]
    unknown = http.post("/v1/states", json={"name": "stage-9", "session": "stages", "at": 9})
    assert unknown.status_code == 404 and live.service.store.check() == ()


def test_a_state_is_in_no_list_until_it_is_whole(live, http, monkeypatch):
    seen, store = [], live.service.store
    before = [info.name for info in store.within("states").list()]
    sessions = store.usage().sessions

    async def half(service, exchange, session, reading, **more):
        seen.append(([info.name for info in store.within("states").list()], session.name))
        raise ApiError(errors.QUEUE_FULL, "come back later")

    monkeypatch.setattr(states, "read_into", half)
    assert http.post("/v1/states", json={"name": "half", "text": "x"}).status_code == 429
    [(listed, name)] = seen
    assert listed == before and store.usage().sessions == sessions
    assert http.get(f"/v1/states/{name}").status_code == 400  # no client's name can be one of these


def test_a_session_in_which_nothing_was_said_has_no_state(http):
    http.post("/v1/sessions", json={"name": "silent"})
    refused = http.post("/v1/states", json={"name": "nothing", "session": "silent"})
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "turn_not_found"
    assert "nothing has been said yet" in refused.json()["error"]["message"]
    assert "nothing" not in {one["id"] for one in http.get("/v1/states").json()["data"]}
