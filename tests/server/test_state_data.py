"""States that come with a request and go with its answer: nothing is kept, nothing believed."""

from __future__ import annotations

import json
import pickle
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
import torch

import griffin
from griffin.conversation import Conversation, begin
from griffin.sessions.tensor_file import TensorFile, pack
from tests.support.live_server import NAME, serving
from tests.support.toy_folder import write_toy

FIELDS = {"temperature": 0, "max_tokens": 6}
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def live(llm, folder):
    limits = {"max_state_bytes": 100_000, "max_body_bytes": 20_000, "max_prompt_tokens": 5_000}
    with serving(llm, folder, state_data=True, limits=limits) as live:
        yield live


def ask(http, *contents, **fields):
    messages = [{"role": "user", "content": content} for content in contents]
    body = {"messages": messages, "return_state": True, **FIELDS, **fields}
    return http.post("/v1/chat/completions", json=body)


def said(answer):
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["choices"][0]["message"]["content"], body["griffin"].get("state_data")


@pytest.fixture(scope="module")
def sent(live):
    with live.http() as http:
        return said(ask(http, "one"))[1]


def test_a_conversation_goes_on_from_what_the_client_carries(live, llm, http):
    talk = Conversation(llm, begin(llm, None), sampling=dict(FIELDS))
    expected = ["".join(talk.say(message)) for message in ("one", "two", "three")]
    first, state = said(ask(http, "one"))
    second, after = said(ask(http, "two", state_data=state))
    third, none = said(ask(http, "three", state_data=after, return_state=False))
    assert [first, second, third] == expected and none is None
    again, _ = said(ask(http, "two", state_data=state))  # the state is as it was
    assert again == second
    assert live.service.store.list() == () and not http.get("/v1/states").json()["data"]


def test_streamed_the_state_comes_last(http, client):
    expected, state = said(ask(http, "one"))
    extra = {"return_state": True}
    chunks = list(
        client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": "one"}],
            stream=True,
            extra_body=extra,
            **FIELDS,
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == expected
    last = chunks[-1]
    assert (
        last.choices == []
        and said(ask(http, "two", state_data=last.griffin["state_data"]))[0]
        == said(ask(http, "two", state_data=state))[0]
    )


def test_a_begun_answer_and_words_go_with_it(live, llm, http):
    system, begun = (
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "A"},
    )
    messages = [system, {"role": "user", "content": "one"}, begun]
    body = {"messages": messages, "return_state": True, **FIELDS}
    answer, state = said(http.post("/v1/chat/completions", json=body))
    talk = Conversation(llm, begin(llm, None, None, "Be brief."), sampling=dict(FIELDS))
    talk.prefill = "A"
    assert "A" + answer == "".join(talk.say("one"))
    assert said(ask(http, "two", state_data=state))[0] == "".join(talk.say("two"))


def test_states_go_to_the_shelf_and_back(http, sent):
    data = b64decode(sent)
    made = http.put("/v1/states/carried/data", content=data, headers=OCTETS)
    assert made.status_code == 200 and made.json()["id"] == "carried"
    expected, _ = said(ask(http, "two", state_data=sent))
    assert said(ask(http, "two", state="carried"))[0] == expected
    back = http.get("/v1/states/carried/data")
    assert back.headers["content-type"] == "application/octet-stream"
    assert said(ask(http, "two", state_data=b64encode(back.content).decode()))[0] == expected
    assert http.put("/v1/states/carried/data", content=data, headers=OCTETS).status_code == 409
    wrong = http.put("/v1/states/other/data", content=data)
    assert wrong.status_code == 415 and "octet-stream" in wrong.json()["error"]["message"]
    assert http.get("/v1/states/none/data").status_code == 404
    assert http.delete("/v1/states/carried").status_code == 200


def test_the_state_is_a_file_of_any_safetensors_library(sent, tmp_path):
    from safetensors.torch import load

    tensors = load(b64decode(sent))
    assert "ids" in tensors and all(torch.isfinite(t.float()).all() for t in tensors.values())


@pytest.mark.parametrize("field", [{"return_state": True}, {"state_data": "AAAA"}])
def test_it_is_off_unless_allowed(llm, tmp_path, field):
    with serving(llm, tmp_path / "store") as live, live.http() as http:
        body = {"messages": [{"role": "user", "content": "one"}], **field}
        answer = http.post("/v1/chat/completions", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, next(iter(field)))
        assert "--allow-state-data" in error["message"]
        for do in (http.get, lambda path: http.put(path, content=b"x", headers=OCTETS)):
            answer = do("/v1/states/one/data")
            assert answer.status_code == 400 and "--allow-state-data" in answer.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ({"session_id": "s"}, "return_state"),
        ({"session_id": "s", "state_data": "AAAA"}, "state_data"),
        ({"state": "s", "state_data": "AAAA"}, "state_data"),
        ({"state_data": "no base64!"}, "state_data"),
        ({"state_data": "AAAAA"}, "state_data"),
        ({"state_data": 7}, "state_data"),
        ({"return_state": "yes"}, "return_state"),
    ],
)
def test_what_contradicts_is_refused_by_name(http, fields, param):
    answer = ask(http, "one", **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def other_model(tmp_path_factory):
    toy = write_toy(tmp_path_factory.mktemp("other") / "toy", vocab_size=544)
    llm = griffin.load(toy, device="cpu")
    with serving(llm, state_data=True) as live, live.http() as http:
        return b64decode(said(ask(http, "one"))[1])


def changed(data, tensor=None, **metadata):
    """Return a state file with something else in it, and right checksums."""
    with TensorFile(Path("x"), data) as file:
        tensors = {name: file.read(name) for name in file.specs}
        said = dict(file.metadata)
    if tensor is not None:
        tensor(tensors)
    said |= {name: str(value) for name, value in metadata.items()}
    return b"".join(pack(tensors, said).chunks)


def number(tensors, value):
    next(t for name, t in tensors.items() if name.startswith("rg_lru")).view(-1)[0] = value


def short(tensors):
    name = next(name for name in tensors if name.startswith("k."))
    tensors[name] = tensors[name][:-1].clone()


BAD = {
    "empty": lambda d: b"",
    "no state": lambda d: b"an owl sees at night, and so on",
    "pickle": lambda d: pickle.dumps({"a": torch.zeros(3)}),
    "cut": lambda d: d[:-1],
    "longer": lambda d: d + b"x",
    "one bit": lambda d: d[:-9] + bytes([d[-9] ^ 1]) + d[-8:],
    "huge header": lambda d: (1 << 62).to_bytes(8, "little") + d[8:],
    "NaN": lambda d: changed(d, lambda t: number(t, float("nan"))),
    "huge": lambda d: changed(d, lambda t: number(t, 1e38)),
    "infinity": lambda d: changed(d, lambda t: number(t, float("inf"))),
    "short tensor": lambda d: changed(d, short),
    "no tensor": lambda d: changed(d, lambda t: t.pop(next(iter(t)))),
    "a tensor more": lambda d: changed(d, lambda t: t.update(x=torch.zeros(1))),
    "another type": lambda d: changed(
        d, lambda t: t.update({n: v.double() for n, v in t.items() if n.startswith("rg_lru")})
    ),
    "negative position": lambda d: changed(d, pos=-1),
    "far position": lambda d: changed(d, pos=2**53),
    "beyond int64": lambda d: changed(d, pos=2**70, tokens_seen=2**70),
    "no number": lambda d: changed(d, pos="x"),
    "many tokens": lambda d: changed(d, tokens_seen=2**62),
    "no pending": lambda d: changed(d, pending_ids="[]"),
    "foreign pending": lambda d: changed(d, pending_ids="[99999999]"),
    "negative pending": lambda d: changed(d, pending_ids="[-1]"),
    "another format": lambda d: changed(d, format="griffin-state"),
    "another chain": lambda d: changed(d, token_chain_hash="00" * 16),
    "turns": lambda d: changed(d, turns='[{"role": 1}]'),
    "deep": lambda d: changed(d, turns="[" * 5000),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_hostile_state_is_refused_in_a_line(http, sent, kind):
    data = BAD[kind](b64decode(sent))
    answers = [
        ask(http, "two", state_data=b64encode(data).decode()),
        http.put("/v1/states/bad/data", content=data, headers=OCTETS),
    ]
    for answer in answers:
        message = answer.json()["error"]["message"]
        assert 400 <= answer.status_code < 500 and "\n" not in message, answer.text
        assert len(message) < 500 and "Traceback" not in message
    assert http.get("/v1/states/bad").status_code == 404


def test_the_state_of_another_model_is_refused(http, tmp_path_factory):
    data = other_model(tmp_path_factory)
    answer = ask(http, "two", state_data=b64encode(data).decode())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "state_mismatch")
    answer = http.put("/v1/states/bad/data", content=data, headers=OCTETS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "state_mismatch")


def test_more_than_the_bounds(http, sent):
    data = b64decode(sent)
    many = json.dumps([5] * 6_000)
    pending = changed(data, pending_ids=many, tokens_seen=7_000)
    long = changed(data, title="x" * 30_000)
    for bad, status in ((pending, (400, 409)), (long, (413,)), (b"x" * 100_001, (413,))):
        assert ask(http, "two", state_data=b64encode(bad).decode()).status_code in status
        put = http.put("/v1/states/bad/data", content=bad, headers=OCTETS)
        assert put.status_code in status
    # What is beside the state has the bound that any body has.
    assert ask(http, "x" * 21_000, state_data=sent).status_code == 413
    assert ask(http, "x" * 21_000).status_code == 413
