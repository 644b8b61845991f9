"""Pages that speak to the server behind one's back, and those that may."""

from __future__ import annotations

import pytest

from griffin.server.http.hosts import Hosts
from tests.support.live_server import ALICE, CHAT, as_, serving


def test_a_name_that_is_not_ours(live):
    for host in (
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
    ):
        with as_(live, ALICE, host=host) as http:
            answer = http.get("/v1/models")
            assert answer.status_code == 403 and answer.json()["error"]["code"] == "forbidden", host
    for host in ("localhost", f"127.0.0.1:{live.port}", "[::1]:8000"):
        with as_(live, ALICE, host=host) as http:
            assert http.get("/v1/models").status_code == 200, host


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example"]
)
def test_a_page_from_elsewhere(live, origin):
    with as_(live, ALICE, origin=origin) as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 403
        assert http.delete("/v1/sessions/x").status_code == 403
        assert http.options("/v1/chat/completions").status_code == 403
        read = http.get("/v1/models")
        assert not [name for name in read.headers if name.startswith("access-control")]


def test_our_own_page(live):
    with as_(live, ALICE, origin=live.url) as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_a_page_that_was_allowed(llm):
    hosts = Hosts(origins=["https://chat.example.org"])
    with (
        serving(llm, hosts=hosts) as live,
        live.http(headers={"origin": "https://chat.example.org"}) as http,
    ):
        asked = http.options("/v1/chat/completions")
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == "https://chat.example.org"
        assert "access-control-allow-credentials" not in asked.headers
        answer = http.post("/v1/chat/completions", json=CHAT)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example.org"


# What openai-node's client in a page asks to send, and what a preflight of it looks like.
STAINLESS = (
    *("authorization", "content-type", "x-stainless-arch", "x-stainless-helper-method"),
    *("x-stainless-lang", "x-stainless-os", "x-stainless-package-version"),
    *("x-stainless-retry-count", "x-stainless-runtime", "x-stainless-runtime-version"),
    "x-stainless-timeout",
)
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": ",".join(STAINLESS),
}


@pytest.mark.parametrize(
    "origin",
    [
        *("chrome-extension://bpcjbcdefghijklmnopabcdefghijklm", "app://obsidian.md"),
        *("tauri://localhost", "vscode-webview://1a2b3c4d-0000-4000-8000-abcdefabcdef"),
        *("http://localhost:3000", "http://[::1]:5173", "moz-extension://1f0c-22"),
    ],
)
def test_what_is_no_web_page_may_be_allowed(llm, origin):
    """A browser's extension, an editor, a desktop program: by the origin that each says."""
    scheme = origin.partition("://")[0]
    with serving(llm, hosts=Hosts(origins=[origin])) as live:
        with live.http(headers={"origin": origin}) as http:
            asked = http.options("/v1/chat/completions", headers=PREFLIGHT)
            assert asked.status_code == 204
            assert asked.headers["access-control-allow-origin"] == origin
            allowed = asked.headers["access-control-allow-headers"].split(", ")
            assert set(STAINLESS) <= set(allowed)
            answer = http.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
        for foreign in (f"{scheme}://other", f"{origin}x", "null", "https://example.com"):
            with live.http(headers={"origin": foreign}) as http:
                assert http.options("/v1/chat/completions", headers=PREFLIGHT).status_code == 403
                assert http.post("/v1/chat/completions", json=CHAT).status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "localhost", "https://", "app://", "https://*.example.org", "://x"),
        *("https://chat.example.org/page", "chrome-extension://*", "https://a@b", "1x://name"),
        "https://chat.example.org https://other.example.org",
    ],
)
def test_what_is_no_origin(origin):
    with pytest.raises(ValueError, match="no wildcards"):
        Hosts(origins=[origin])
