"""TLS, a prefix of all paths, and whose word counts about who asks."""

from __future__ import annotations

import asyncio
import select
import shutil
import socket
import ssl
import subprocess
from typing import Any

import httpx2
import pytest

from griffin.server.fleet.acceptor import Acceptor
from griffin.server.http.crowd import GUESTS
from griffin.server.http.front import check_root, check_trusted, leave_root, tls_context
from griffin.server.http.keys import Keys
from griffin.server.settings import Settings
from tests.support.live_server import ALICE, CHAT, serving
from tests.support.waiting import until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a certificate, its key, and that key encrypted."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key, locked = (folder / name for name in ("cert.pem", "key.pem", "locked.pem"))
    make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    for arguments in (
        [*make, "-keyout", key, "-out", cert, "-days", "2", *name],
        ["pkey", "-in", key, "-out", locked, "-aes256", "-passout", "pass:owls"],
    ):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    return cert, key, locked


def test_it_speaks_tls(llm, certificate):
    cert, key, _ = certificate
    with serving(llm, tls=tls_context(cert, key)) as live:
        assert live.server.url == f"https://{live.host}:{live.port}"
        knows = ssl.create_default_context(cafile=cert)
        with httpx2.Client(base_url=live.server.url, verify=knows) as http:
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
            page = {"origin": live.server.url}  # the page's own, which is https
            assert http.post("/v1/chat/completions", json=CHAT, headers=page).status_code == 200
            foreign = {"origin": f"http://{live.host}:{live.port}"}
            assert http.post("/v1/chat/completions", json=CHAT, headers=foreign).status_code == 403
        with socket.create_connection((live.host, live.port)) as plain:
            plain.settimeout(60)
            plain.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 2")


def test_handshakes_that_never_end_are_connections_too(llm, certificate):
    """They are held open only as far as those without a key may be, and shut nobody out."""
    cert, key, _ = certificate
    settings = Settings(max_connections=4, header_seconds=600.0)
    keys = Keys([ALICE])
    with serving(llm, tls=tls_context(cert, key), settings=settings, keys=keys) as live:
        held = [live.raw(b"") for _ in range(4 + GUESTS + 8)]
        until(lambda: len(select.select(held, [], [], 0)[0]) >= 8)
        knows = ssl.create_default_context(cafile=cert)
        bearer = {"authorization": f"Bearer {ALICE}"}
        with httpx2.Client(base_url=live.server.url, verify=knows, headers=bearer) as http:
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
        for one in held:
            one.close()


def test_replicas_speak_it_too(certificate):
    cert, key, _ = certificate

    class Greeting(asyncio.Protocol):
        def connection_made(self, transport: Any):
            transport.write(b"owl")
            transport.close()

    async def main():
        shared = socket.socket()
        shared.bind(("127.0.0.1", 0))
        tls = {"ssl": tls_context(cert, key), "ssl_handshake_timeout": 60.0}
        acceptor = Acceptor([shared.dup()], Greeting, lambda: 0, 64, tls=tls)
        knows = ssl.create_default_context(cafile=cert)
        reader, writer = await asyncio.open_connection(*shared.getsockname(), ssl=knows)
        said = await reader.read()
        writer.close()
        acceptor.close()
        await acceptor.wait_closed()
        return said

    assert asyncio.run(main()) == b"owl"


def test_a_certificate_that_is_none(certificate, tmp_path):
    cert, key, locked = certificate
    assert tls_context(None) is None and tls_context(cert, locked, "owls") is not None
    (bad := tmp_path / "bad.pem").write_text("an owl")
    for arguments, words in (
        ((None, key), "needs its certificate"),
        ((bad,), "no certificate and key"),
        ((cert,), "no certificate and key"),
        ((cert, locked), "--ssl-keyfile-password"),
        ((cert, locked, "bats"), "no certificate and key"),
        ((tmp_path / "none.pem",), "No such file"),
    ):
        with pytest.raises(ValueError, match=words):
            tls_context(*arguments)


def test_a_prefix_may_be_there_or_taken_off(llm):
    with serving(llm, root_path="/apps/owl") as live, live.http() as http:
        for prefix in ("", "/apps/owl"):
            assert http.get(f"{prefix}/health").status_code == 200
            answer = http.post(f"{prefix}/v1/chat/completions", json=CHAT)
            assert answer.status_code == 200
            assert "text/html" in http.get(f"{prefix}/").headers["content-type"]
        bare = http.get("/apps/owl")
        assert (bare.status_code, bare.headers["location"]) == (308, "/apps/owl/")
        for other in ("/apps/owls/health", "/apps", "/apps/owl/apps/owl/health"):
            assert http.get(other).status_code == 404
        assert http.get("/openapi.json").json()["servers"] == [{"url": "/apps/owl"}]
        health = http.get("/apps/owl/health", headers={"host": "10.0.0.1"})
        assert health.status_code == 200  # public below the prefix, too


@pytest.mark.parametrize("path", ["owl", "//owl", "/o wl", "/owl?x", "/a//b"])
def test_a_prefix_that_is_none(path):
    with pytest.raises(ValueError, match="no prefix of paths"):
        check_root(path)
    assert check_root("/owl/") == "/owl" and check_root("") == check_root("/") == ""
    scope = {"path": "/v1/models"}
    assert not leave_root(scope, "") and scope["path"] == "/v1/models"


def who(live, **headers):
    """Return the address and scheme that a request seems to have come with."""
    seen = []
    before = type(live.service.hosts).check

    def check(hosts, method, scheme, *given, **more):
        seen.append(scheme)
        return before(hosts, method, scheme, *given, **more)

    take = live.service.budget.take

    def note(count, holder):
        seen.append(holder)
        take(count, holder)

    with pytest.MonkeyPatch.context() as patch, live.http() as http:
        patch.setattr(type(live.service.hosts), "check", check)
        patch.setattr(live.service.budget, "take", note)
        assert http.post("/tokenize", json={"prompt": "a"}, headers=headers).status_code == 200
    return seen[-1].removeprefix("at "), seen[0]


FORWARDED = {"x-forwarded-for": "6.6.6.6, 10.1.2.3", "x-forwarded-proto": "https"}


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        ((), ("127.0.0.1", "http")),
        (("10.0.0.0/8",), ("127.0.0.1", "http")),
        (("127.0.0.1",), ("10.1.2.3", "https")),
        (("127.0.0.1", "10.0.0.0/8"), ("6.6.6.6", "https")),
        (("*",), ("6.6.6.6", "https")),
    ],
)
def test_only_proxies_that_are_trusted_say_who_asks(llm, trusted, expected):
    with serving(llm, trusted=trusted) as live:
        assert who(live, **FORWARDED) == expected
        assert who(live) == ("127.0.0.1", "http")


def test_addresses_of_proxies():
    assert check_trusted(["127.0.0.1, 10.0.0.0/8", "::1"]) == ("127.0.0.1", "10.0.0.0/8", "::1")
    assert check_trusted(["*", "::1"]) == ("*",) and check_trusted([]) == ()
    for wrong in ("proxy", "10.0.0.1/8", "", "300.1.1.1"):
        with pytest.raises(ValueError, match="no address of a proxy"):
            check_trusted([wrong])
