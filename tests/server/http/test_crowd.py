"""More connections than there may be: who goes, who stays; and descriptors for all of them."""

from __future__ import annotations

import errno
import resource
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.server.http import descriptors
from griffin.server.http.crowd import GUESTS, Crowd
from griffin.server.http.descriptors import KEPT_BACK, is_exhausted, room_for
from tests.support.live_server import ALICE, BOB, CHAT, as_
from tests.support.waiting import until


class One:
    """A connection that notes whether it was closed."""

    def __init__(self, idle: bool = True) -> None:
        self.idle, self.left = idle, False

    def leave(self) -> None:
        self.left = True


def crowd_of(most: int, *holders: str) -> tuple[Crowd, list[One]]:
    crowd, came = Crowd(most), []
    for holder in holders:
        came.append(one := One())
        crowd.come(one)
        assert crowd.knows(one, holder)
    return crowd, came


def test_those_without_a_key_go_first_and_of_them_the_one_idle_longest():
    crowd, (a, b, c, d) = crowd_of(4, "key", "", "", "key")
    crowd.knows(b, "")  # it asks again
    for expected in (c, b):
        crowd.come(new := One())
        assert crowd.knows(new, "other") and expected.left
    assert not a.left and not d.left


def test_then_the_one_with_most_connections_gives_one():
    crowd, (*many, few) = crowd_of(4, "many", "many", "many", "few")
    crowd.come(new := One())
    assert crowd.knows(new, "new") and many[0].left and not few.left
    many[1].idle = many[2].idle = few.idle = new.idle = False
    crowd.come(last := One())
    assert not crowd.knows(last, "new")  # all are busy


def test_a_guest_without_a_key_has_to_go():
    crowd, _ = crowd_of(2, "", "")
    crowd.come(guest := One())
    assert not crowd.knows(guest, "")


def test_nobody_takes_from_those_who_have_less():
    crowd, held = crowd_of(4, "many", "many", "many", "few")
    for one in held[:3]:
        one.idle = False
    crowd.come(new := One())
    assert not crowd.knows(new, "many") and not held[3].left


@given(
    st.lists(st.tuples(st.sampled_from(["come", "ask", "go"]), st.integers(0, 99)), max_size=300)
)
def test_there_are_never_more_than_may_be(moves):
    crowd, here = Crowd(5), []
    for what, which in moves:
        here = [one for one in here if not one.left]
        if what == "come":
            here.append(one := One(which % 2 == 0))
            crowd.come(one)
        elif here and what == "ask":
            one = here[which % len(here)]
            if not crowd.knows(one, ["", "a", "b"][which % 3]):
                crowd.go(one)
                here.remove(one)
        elif here:
            crowd.go(here.pop(which % len(here)))
        here = [one for one in here if not one.left]
        assert len(crowd) == len(here) <= 5 + GUESTS


def test_idle_connections_without_a_key_shut_nobody_out(live):
    """They have asked once, so no header of theirs is late."""
    ask = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    held = [live.raw(ask) for _ in range(20)]
    assert all(b"200 OK" in sock.recv(4096) for sock in held)
    with as_(live, ALICE) as alice, as_(live, BOB) as bob:
        for http in (alice, bob, alice):
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
    for sock in held:
        sock.close()


def test_a_key_that_holds_all_connections_shuts_no_other_out(live):
    ask = f"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ALICE}\r\n\r\n"
    held = [live.raw(ask.encode()) for _ in range(20)]
    assert all(b"200 OK" in sock.recv(4096) for sock in held)
    with as_(live, BOB) as bob:
        for _ in range(2):
            assert bob.post("/v1/chat/completions", json=CHAT).status_code == 200
    for sock in held:
        sock.close()


def limits(monkeypatch, soft: int, hard: int) -> list[tuple[int, int]]:
    """Pretend that a process may open so many files; return what is set."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: found.append(pair))
    monkeypatch.setattr(descriptors, "_OWN", descriptors.Path("/no/such/folder"))
    return found


def test_descriptors_are_there_for_every_connection(monkeypatch):
    beside = GUESTS + 2 * KEPT_BACK
    found = limits(monkeypatch, 1024, 1 << 20)
    assert room_for(1024) == 1024 and found == [(1024 + beside, 1 << 20)]
    found = limits(monkeypatch, 1024, resource.RLIM_INFINITY)
    assert room_for(5000) == 5000 and found == [(5000 + beside, resource.RLIM_INFINITY)]
    for soft in (resource.RLIM_INFINITY, 1 << 16):
        found = limits(monkeypatch, soft, soft)
        assert room_for(1024) == 1024 and not found


def test_fewer_connections_where_the_system_allows_no_more(monkeypatch, caplog):
    limits(monkeypatch, 512, 512)
    assert room_for(1024) == 512 - GUESTS - 2 * KEPT_BACK
    assert "connections at a time instead of 1024" in caplog.text
    limits(monkeypatch, 100, 100)
    with pytest.raises(ValueError, match=r"may open 100 files \(ulimit -n\)"):
        room_for(1024)


def test_none_left_is_no_bug(live, monkeypatch):
    """Whatever needed one: the answer is 503, worth another try."""

    def chained(inner):
        try:
            raise inner
        except OSError:
            raise RuntimeError("late") from None

    assert is_exhausted(OSError(errno.EMFILE, "too many")) and not is_exhausted(OSError(errno.EIO))
    with pytest.raises(RuntimeError) as caught:
        chained(OSError(errno.ENFILE, "too many"))
    assert is_exhausted(caught.value) and not is_exhausted(RuntimeError("x"))
    with pytest.raises(sqlite3.OperationalError) as cannot:
        sqlite3.connect("/no/such/folder/index.db")
    assert is_exhausted(cannot.value)

    def none_left(*_, **__):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(live.service.store, "usage", none_left)
    with as_(live, ALICE) as http:
        reply = http.get("/v1/server")
        assert reply.status_code == 503 and reply.headers["retry-after"] == "1"
        assert reply.json()["error"]["code"] == "not_ready"
        monkeypatch.undo()
        until(lambda: http.get("/v1/server").status_code == 200)
