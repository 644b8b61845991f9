"""The page's files and the headers they come with."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from griffin.server.errors import ApiError
from griffin.server.http.static import HEADERS, POLICY, ChatPage, read_page

FILES = read_page()


def client():
    return TestClient(ChatPage())


def test_every_file_has_every_guard():
    assert {"/", "/page/chat.js", "/page/chat.css", "/page/markdown.js"} <= set(FILES)
    for path in FILES:
        answer = client().get(path)
        assert answer.status_code == 200
        assert HEADERS.items() <= dict(answer.headers).items(), path
        assert int(answer.headers["content-length"]) == len(answer.content)
    assert client().get("/").headers["cache-control"] == "no-store"
    assert client().get("/page/chat.js").headers["content-type"].startswith("text/javascript")


def test_the_policy_is_the_strictest_that_works():
    rules = {rule.partition(" ")[0]: rule.partition(" ")[2] for rule in POLICY.split("; ")}
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_nothing_inline_no_other_host_no_markup_from_strings():
    index = FILES["/"].body.decode()
    assert not re.search(r"<style|style=|\son[a-z]+=|javascript:", index)
    assert all(body == "" for body in re.findall(r"<script[^>]*>([^<]*)</script>", index))
    for path, file in FILES.items():
        text = file.body.decode()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text
        ), path
        # A name, never asked for.
        hosts = set(re.findall(r"https?://[^/\"'` ]+", text)) - {"http://www.w3.org"}
        assert not hosts, path


def test_all_that_the_page_asks_for_is_there():
    """By paths that are relative, so that it works behind any prefix of a proxy's."""
    asked = re.findall(r'(?:href|src)="([^"#]+)"', FILES["/"].body.decode())
    assert "page/chat.js" in asked
    for file in FILES.values():
        names = re.findall(r'from "([^"]+)"', file.body.decode())
        asked += [f"page/{name.removeprefix('./')}" for name in names]
        assert not re.search(r"""["'`]/(?:v1|page)""", file.body.decode())
    assert {f"/{path}" for path in asked} <= set(FILES)


def test_unchanged_files_are_not_sent_again():
    tag = client().get("/page/chat.css").headers["etag"]
    for known in (tag, f'W/{tag}, "other"'):
        again = client().get("/page/chat.css", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == POLICY
    assert client().get("/page/chat.css", headers={"if-none-match": '"other"'}).status_code == 200


def test_head_and_other_methods():
    head = client().head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(FILES["/"].body)
    refused = client().post("/", json={})
    assert refused.status_code == 405 and refused.headers["allow"] == "GET, HEAD"
    with pytest.raises(ApiError, match="read with GET"):
        FILES["/"].reply("DELETE")


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/../static.py",
        "/page/%2e%2e/static.py",
        "/page/index.html",
        "/page//chat.js",
    ],
)
def test_only_names_that_are_known(path):
    answer = client().get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert answer.headers["content-security-policy"] == POLICY
