"""Raw bytes on a real socket: who is asked, how long a body is, and when a connection ends."""

from __future__ import annotations

import json
import logging
import time

import pytest
from click.testing import CliRunner

from griffin.cli import main
from griffin.server.http.hosts import Hosts, name_of
from griffin.server.http.keys import Keys, check_exposure
from griffin.server.settings import Settings
from tests.support.live_server import ALICE, CHAT, Live, received, serving

KEY = f"authorization: Bearer {ALICE}"
BODY = json.dumps(CHAT)


def ask(live: Live, *lines: str, body: str = "", close: bool = True) -> bytes:
    """Return all that comes for a request of these lines, until the connection is closed."""
    ending = ["connection: close"] if close else []
    data = "\r\n".join([*lines, *ending, "", body]).encode("latin-1")
    with live.raw(data) as sock:
        sock.settimeout(20)
        return received(sock)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def path_with(host: str, path: str = "/v1/models") -> tuple[str, ...]:
    return f"GET {path} HTTP/1.1", f"host: {host}", KEY


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST", "LocalHost:80", "localhost.", "localhost:"),
        *("127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]", "[0::1]:1"),
    ],
)
def test_names_of_ours(live, host):
    assert status(ask(live, *path_with(host))) == 200


@pytest.mark.parametrize(
    ("host", "refusal"),
    [
        # A name of somebody else's, whole.
        *(("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403)),
        *(("[::2]", 403), ("127.0.0.2", 403), ("localhosts", 403), ("_localhost", 403)),
        *(("[::ffff:127.0.0.1]", 403), ("xn--localhost", 403), ("", 403)),
        # No name and port at all (RFC 9112, 3.2: a 400).
        *(("[::1].evil.example", 400), ("[::1]evil.example", 400), ("[::1]:80.evil.example", 400)),
        *(("127.0.0.1:8000.evil.example", 400), ("localhost:80.evil.example", 400)),
        *(("localhost:80:80", 400), ("localhost:65536", 400), ("localhost:999999", 400)),
        *(("localhost:-1", 400), ("localhost:8o", 400), ("localhost:+80", 400)),
        *(("localhost..", 400), (".localhost", 400), ("local..host", 400), (".", 400)),
        *(("user@localhost", 400), ("user:pw@localhost", 400), ("localhost@evil.example", 400)),
        *(("localhost/", 400), ("localhost/.evil.example", 400), ("localhost?evil", 400)),
        *(("localhost#evil", 400), ("localhost\\evil", 400), ("localhost, evil.example", 400)),
        *(("localhost evil", 400), ("%6cocalhost", 400), ("local\xf6st", 400), ("*", 400)),
        *(("::1", 400), ("[::1", 400), ("::1]", 400), ("[::1%lo]", 400), ("[]", 400)),
        *(("[::1]]", 400), ("[v1.x]", 400), ("127.0.0.1.1", 400), ("0x7f.1", 400), ("127.1", 400)),
        *(("http://localhost", 400), ("-", 400), ("a" * 64, 400), ("a." * 200, 400)),
    ],
)
def test_names_of_others(live, host, refusal):
    answer = ask(live, *path_with(host))
    assert status(answer) == refusal, answer[:200]
    # What stands before us may have read it otherwise; so does the page, which needs no key.
    assert status(ask(live, f"GET / HTTP/1.1\r\nhost: {host}")) == refusal
    assert status(ask(live, *path_with("localhost"), f"origin: http://{host}")) == 200
    post = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{KEY}\r\norigin: http://"
    assert status(ask(live, post + host)) == 403


def test_a_check_of_a_balancer_needs_no_name(live):
    """HAProxy sends no Host, others the address of the server; no page can make a browser do so."""
    for path, public in (("/health", True), ("/ready", True), ("/v1/models", False), ("/", False)):
        for lines in (
            (f"GET {path} HTTP/1.0",),
            (f"HEAD {path} HTTP/1.0",),
            (f"GET {path} HTTP/1.0", "host: "),
            (f"GET {path} HTTP/1.1", "host: 10.2.3.4:8000"),
            (f"GET {path} HTTP/1.1", "host: [fd00::1]:8000"),
        ):
            got = status(ask(live, *lines, KEY))
            assert got == (200 if public else 403), (lines, got)
        assert status(ask(live, f"GET {path} HTTP/1.1", KEY)) == 400  # a MUST of HTTP/1.1
        assert status(ask(live, *path_with("evil.example", path))) == 403


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        *(("http://localhost/health", 200), ("HTTP://LOCALHOST:8000/health", 200)),
        *(("https://localhost/health", 200), ("http://127.0.0.1/v1/models", 200)),
        *(("http://[::1]:8000/v1/models?x=1", 200), ("http://localhost", 200)),
        *(("http://localhost?x", 200), ("http://localhost/", 200), ("http://localhost/none", 404)),
        *(("http://localhost/v1/models/toy%2f", 404), ("http://localhost//health", 404)),
        *(("http://evil.example/v1/models", 403), ("http://localhost.evil.example/", 403)),
        *(("http://user@localhost/v1/models", 400), ("http:///v1/models", 403)),
        *(("ftp://localhost/health", 404), ("http:/localhost/health", 404), ("*", 404)),
    ],
)
def test_absolute_targets(live, target, wanted):
    """They are as good as a path (RFC 9112, 3.2.2), and theirs is the host that counts."""
    assert status(ask(live, f"GET {target} HTTP/1.1", "host: localhost", KEY)) == wanted
    if wanted == 200:
        assert status(ask(live, f"GET {target} HTTP/1.1", "host: evil.example", KEY)) == 200


@pytest.mark.parametrize(
    "line",
    [
        *("host: localhost", "origin: http://localhost", KEY, "content-type: application/json"),
        *("content-encoding: identity", "x-griffin-session: a"),
    ],
)
def test_a_header_that_came_twice(live, line):
    name, _, value = line.partition(": ")
    for other in (value, value.upper(), "other", ""):
        key, _, bearer = KEY.partition(": ")
        lines = {"host": "localhost", key: bearer, name: value}
        head = [f"{each}: {text}" for each, text in lines.items()]
        answer = ask(live, "GET /v1/models HTTP/1.1", *head, f"{name.title()}: {other}")
        assert status(answer) == 400, answer
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "invalid_value"
    assert status(ask(live, "GET /v1/models HTTP/1.1", *head)) == 200


POST = ("POST /v1/chat/completions HTTP/1.1", "host: localhost", KEY)
JSON = "content-type: application/json"
NEXT = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def chunked(body: str) -> str:
    return f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"


def test_two_lengths_end_the_connection(live):
    """What follows is not read as a request (RFC 9112, 6.1)."""
    for length in (5, len(chunked(BODY)), 10**9, 0):
        lengths = (f"content-length: {length}", "transfer-encoding: chunked")
        for order in (lengths, lengths[::-1]):
            answer = ask(live, *POST, JSON, *order, body=chunked(BODY) + NEXT, close=False)
            assert answer.count(b"HTTP/1.1 ") == 1, answer
            assert b"connection: close" in answer
            # One that says too much is refused before it is read.
            assert status(answer) == (200 if length < 10**9 else 413)
    # One of them alone leaves it open.
    for line, body in (
        (f"content-length: {len(BODY)}", BODY),
        ("transfer-encoding: chunked", chunked(BODY)),
    ):
        last = NEXT.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")
        answer = ask(live, *POST, JSON, line, body=body + last, close=False)
        assert answer.count(b"HTTP/1.1 200") == 2, answer


@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: 3", "content-length: 4"),
        ("content-length: 3, 4",),
        ("content-length: +3",),
        ("content-length: -3",),
        ("content-length: 0x3",),
        ("content-length: 3 3",),
        ("content-length: " + "9" * 30,),
        ("transfer-encoding: chunked", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked, chunked",),
        ("transfer-encoding: identity",),
        ("transfer-encoding: gzip, chunked",),
        ("transfer-encoding: xchunked",),
        ("transfer-encoding : chunked",),
        ("transfer-encoding\x0b: chunked",),
        ("x: a\x00b",),
        ("no colon",),
    ],
)
def test_lengths_that_can_be_read_in_two_ways(live, lines):
    answer = ask(live, *POST, JSON, *lines, body=chunked(BODY) + NEXT, close=False)
    assert status(answer) in (400, 501) and answer.count(b"HTTP/1.1 ") == 1, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower() and json.loads(body)["error"]["message"]


@pytest.mark.parametrize("body", ["zz\r\n", "5\r\nhello", "-1\r\n", "5;x\r\nhelloX\r\n", "\r\n"])
def test_chunks_that_are_none(live, body, caplog):
    """In a body that is read, and in one that was refused unread."""
    with caplog.at_level(logging.ERROR):
        for key in (KEY, "authorization: Bearer wrong"):
            head = (POST[0], POST[1], key, JSON, "transfer-encoding: chunked")
            answer = ask(live, *head, body=body + "\r\nx\r\n" + NEXT, close=False)
            assert status(answer) in (400, 401, 0), answer
            assert answer.count(b"HTTP/1.1 200") == 0
    assert not caplog.records
    assert status(ask(live, *path_with("localhost"))) == 200


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        *(("GET /health HTTP/1.0", 200), ("GET /health HTTP/1.1", 200), ("GET /health", 400)),
        *(("GET  /health HTTP/1.1", 400), ("GET /hea lth HTTP/1.1", 400), ("\x16\x03\x01", 400)),
        *(("G@T /health HTTP/1.1", 400), ("CONNECT localhost:80 HTTP/1.1", 404)),
        *(("PRI * HTTP/2.0", 404), ("OPTIONS * HTTP/1.1", 404), ("GET health HTTP/1.1", 404)),
        *(("TRACE /health HTTP/1.1", 405), ("GET /" + "a" * 9000 + " HTTP/1.1", 431)),
    ],
)
def test_first_lines(live, first, wanted):
    answer = ask(live, first, "host: localhost", KEY)
    assert status(answer) == wanted, answer
    assert wanted == 200 or json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


def test_an_upgrade_is_passed_over(live):
    for kind in ("h2c", "websocket", "TLS/1.0"):
        lines = ("connection: Upgrade, HTTP2-Settings", f"upgrade: {kind}", "http2-settings: AAMA")
        answer = ask(
            live,
            *path_with("localhost"),
            *(*lines, "sec-websocket-key: x", "sec-websocket-version: 13", "connection: close"),
            close=False,
        )
        assert status(answer) == 200, (kind, answer)


def test_a_body_that_waits_to_be_asked_for(live):
    """Asked for where it is read. Where not, the connection ends: it may come, or not."""
    expect = (JSON, f"content-length: {len(BODY)}", "expect: 100-continue")
    answer = ask(live, *POST, *expect, body=BODY)
    assert answer.startswith(b"HTTP/1.1 100 ") and b"HTTP/1.1 200 OK" in answer
    refused = (POST[0], POST[1], "authorization: Bearer wrong", *expect)
    answer = ask(live, *refused, body=NEXT, close=False)
    assert status(answer) == 401 and answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("media", "wanted"),
    [
        *(("application/json", 200), ("Application/JSON", 200), ("application/json;", 200)),
        *(("application/json; charset=utf-8", 200), ("application/json; charset=utf8", 200)),
        *(("application/json;charset=UTF-8", 200), ('application/json; charset="UTF-8"', 200)),
        *(('application/json ; Charset="utf8"', 200), ("application/json; profile=x", 200)),
        *(("application/json; a=b; charset=utf-8", 200), ("application/json; charset=utf-16", 415)),
        *(("application/json; charset=latin1", 415), ("application/json; charset=", 415)),
        *(("application/json; charset=utf-8; charset=utf-7", 415), ("text/json", 415)),
        *(("application/jsonp", 415), ("application/json, text/plain", 415), (";", 415)),
        *(("text/plain; charset=utf-8", 415), ("text/plain; x=application/json", 415)),
    ],
)
def test_media(live, media, wanted):
    head = (*POST, f"content-type: {media}", f"content-length: {len(BODY)}")
    answer = ask(live, *head, body=BODY)
    assert status(answer) == wanted, answer
    if "=utf-16" in media:
        assert b"'utf-16'; send it in utf-8" in answer


def test_a_connection_stays_open_for_as_long_as_is_said(llm):
    assert Settings().idle_seconds >= 75  # balancers keep theirs for a minute
    with serving(llm, settings=Settings(idle_seconds=0.5)) as live, live.raw(NEXT.encode()) as sock:
        answer = b""
        while not answer.endswith(b"}"):
            answer += sock.recv(4096)
        begun = time.monotonic()
        assert received(sock) == b""  # until it is closed
        assert time.monotonic() - begun > 0.3
    said = CliRunner().invoke(main, ["serve", "--help"]).output
    assert "--idle-seconds" in said and "75" in said


def test_a_page_that_was_allowed_may_send_what_its_client_sends(llm):
    """The official client has a dozen headers of its own."""
    hosts = Hosts(origins=["https://chat.example.org"])
    asked = ["authorization", *(f"x-stainless-{number}" for number in range(20))]
    lines = (
        "OPTIONS /v1/chat/completions HTTP/1.1",
        "host: localhost",
        "origin: https://chat.example.org",
        "access-control-request-method: POST",
    )
    with serving(llm, hosts=hosts) as live:
        answer = ask(live, *lines, "access-control-request-headers: " + ", ".join(asked))
        allowed = answer.decode().lower().split("access-control-allow-headers: ")[1].split("\r\n")
        assert status(answer) == 204 and set(asked) <= set(allowed[0].split(", "))
        odd = "a b, x:y, \x80, *, <script>, " + ", ".join(f"h{n}" for n in range(3000))
        answer = ask(live, *lines, f"access-control-request-headers: {odd}")
        assert status(answer) == 204 and len(answer) < 2000 and b"script" not in answer
        stranger = [line.replace("chat.", "evil.") for line in lines]
        assert status(ask(live, *stranger, "access-control-request-headers: x")) == 403


# Names that an operator gives.


def test_an_open_server_without_keys_must_know_its_names():
    """Or any page could reach it by a name of its own, which leads here (DNS rebinding)."""
    args = ["serve", "--model", "/nowhere", "--insecure-no-auth", "--host"]
    for host in ("0.0.0.0", "192.168.0.1", "::", "example.org"):
        refused = CliRunner().invoke(main, [*args, host])
        assert refused.exit_code == 2 and "--allow-host" in refused.output, refused.output
        passed = CliRunner().invoke(main, [*args, host, "--allow-host", "chat.example.org"])
        assert "--allow-host" not in passed.output, passed.output
        with pytest.raises(ValueError, match="--allow-host"):
            check_exposure(host, None, Keys(), True, [])
        check_exposure(host, None, Keys([ALICE]), True, [])
    check_exposure("127.0.0.1", None, Keys(), True, [])


@pytest.mark.parametrize(
    "name", ["*", "*.example.org", "https://a.example", "a.example:80", "a/b", "", "a b", "[::1"]
)
def test_names_that_could_never_be_met(name):
    with pytest.raises(ValueError, match="is no name of a server"):
        Hosts([name])


def test_a_server_goes_by_the_address_it_is_bound_to():
    assert Hosts.bound_to("127.0.0.2").names == {"localhost", "127.0.0.1", "::1", "127.0.0.2"}
    assert Hosts.bound_to("0.0.0.0").names is None
    assert Hosts.bound_to("0.0.0.0", ["A.example."]).names == {"a.example"}
    assert Hosts.bound_to("10.0.0.1", ["a.example"]).names == {"a.example", "10.0.0.1"}
    assert Hosts(["::1", "[::2]"]).names == {"::1", "::2"}
    assert name_of("[0:0::1]:80") == "::1" and name_of("A.Example.:") == "a.example"
