"""Two servers at one address, as replicas are, in one process: whichever is asked speaks for
both."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from griffin.llm import LLM
from griffin.server.build import build
from griffin.server.fleet.replica import ReplicaConfig
from griffin.server.http.sockets import bound, url_of
from griffin.server.run import Server
from tests.support.live_server import serving
from tests.support.waiting import until


@dataclass
class Pair:
    """Both servers, in their threads, and their address."""

    url: str
    servers: list[Server]
    threads: list[threading.Thread]

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", timeout=60)

    def say(self, session: str) -> httpx2.Response:
        body = {
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 2,
            "session_id": session,
        }
        return httpx2.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)

    def from_both(self, path: str) -> dict[str, httpx2.Response]:
        """Return what each answers, by its number."""
        found: dict[str, httpx2.Response] = {}

        def asked() -> bool:
            reply = self.get(path)
            found[reply.headers["x-griffin-replica"]] = reply
            return len(found) == 2

        until(asked)
        return found


@pytest.fixture
def pair(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("b")
    [listener] = bound("127.0.0.1", 0, None)
    servers = []
    for number, slots in ((1, 2), (2, 3)):
        service = build(
            llm, name="toy", store=folder / "kept", slots=slots, chunk=16, cache_bytes=1 << 20
        )
        own = os.dup(listener.fileno())
        config = ReplicaConfig(
            number=number, of=2, first=False, listeners=(own,), link=0, folder=str(folder)
        )
        servers.append(Server(service, replica=config))
    url = url_of(listener)
    listener.close()
    threads = [
        threading.Thread(target=lambda one=one: asyncio.run(one.serve()), daemon=True)
        for one in servers
    ]
    for thread in threads:
        thread.start()
    until(lambda: all(one.started and one.servers for one in servers))
    yield Pair(url, servers, threads)
    for server, thread in zip(servers, threads, strict=True):
        if thread.is_alive():
            server.stop()
        thread.join(60)
        assert not thread.is_alive()
    assert not list(Path(folder).glob("*.sock"))


def test_either_tells_of_both(pair):
    said = [pair.say(f"s{number}") for number in range(4)]
    assert all(reply.status_code == 200 for reply in said)
    for number, reply in pair.from_both("/v1/server").items():
        shown = reply.json()
        assert shown["replica"] == int(number) and shown["slots"]["total"] == 5
        each = shown["replicas"]
        assert [(one["replica"], one["up"], one["slots"]["total"]) for one in each] == [
            (1, True, 2),
            (2, True, 3),
        ]
        for what in ("weights", "slots"):
            assert (
                shown["bytes"][what]
                == sum(one["bytes"][what] for one in each)
                > each[0]["bytes"][what]
            )
        assert shown["bytes"]["sessions"] > 0  # the folder's, once
    for reply in pair.from_both("/metrics").values():
        chats = re.findall(
            r'^griffin_requests_total\{.*"POST /v1/chat/completions".*\} (\d+)',
            reply.text,
            re.MULTILINE,
        )
        assert sum(map(int, chats)) == 4
        assert set(
            re.findall(r'^griffin_slots\{replica="(.)",state="total"\}', reply.text, re.M)
        ) == {
            "1",
            "2",
        }


def test_busy_is_told_whoever_holds_the_session(pair):
    assert pair.say("s").status_code == 200
    store = pair.servers[0].service.store
    with store.open("s", pair.servers[0].service.fingerprint):
        assert {reply.json()["busy"] for reply in pair.from_both("/v1/sessions/s").values()} == {
            True
        }
        refused = pair.say("s")
        assert refused.status_code == 409 and refused.json()["error"]["code"] == "session_busy"
    assert {reply.json()["busy"] for reply in pair.from_both("/v1/sessions/s").values()} == {False}


def test_it_is_ready_while_one_is(pair):
    first, second = (server.service for server in pair.servers)
    first.draining = True
    assert {reply.status_code for reply in pair.from_both("/ready").values()} == {200}
    second.draining = True
    replies = pair.from_both("/ready").values()
    assert {(reply.status_code, reply.json()["status"]) for reply in replies} == {(503, "draining")}


def test_one_whose_engine_broke_makes_room(pair):
    pair.servers[0].service.engine._abandon(RuntimeError("a step was torn"))
    pair.threads[0].join(60)  # its supervisor would start another
    assert not pair.threads[0].is_alive() and pair.threads[1].is_alive()
    assert pair.say("s").headers["x-griffin-replica"] == "2"
    each = pair.get("/v1/server").json()["replicas"]
    assert [one["up"] for one in each] == [False, True] and each[0]["slots"]["total"] == 0
    assert 'griffin_replica_up{replica="1"} 0.0' in pair.get("/metrics").text


def test_one_alone_says_that_it_broke(llm):
    with serving(llm) as live, live.http() as http:
        shown = http.get("/v1/server").json()
        assert shown["replica"] == 1 and [one["replica"] for one in shown["replicas"]] == [1]
        assert (
            "replica=" not in http.get("/metrics").text
            and "x-griffin-replica" not in http.get("/ready").headers
        )
        assert http.get("/ready").status_code == 200
        live.service.engine._abandon(RuntimeError("a step was torn"))
        reply = http.get("/ready")
        assert reply.status_code == 503 and reply.json() == {"status": "broken"}
