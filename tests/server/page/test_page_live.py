"""The page in front of the real server, with the toy model."""

from __future__ import annotations

import pytest

import griffin
from tests.support.live_server import NAME, serving
from tests.support.toy_adapters import write_adapter
from tests.support.toy_folder import write_toy

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import expect

from tests.support.page_steps import say, texts


def most(page, tokens):
    page.locator("#options").evaluate("options => { options.open = true; }")
    page.get_by_label("Most tokens").fill(str(tokens))


def said(live):
    """Return what was said on the way to where each session stands, by title."""
    http, found = live.http(), {}
    for session in http.get("/v1/sessions").json()["data"]:
        turns = http.get(f"/v1/sessions/{session['id']}/turns").json()["data"]
        found[session["title"]] = [t["text"].split("\n")[0] for t in turns if t["current"]]
    return found


@pytest.mark.thorough
def test_a_conversation_with_the_real_server(visit, live):
    page = visit(live)
    most(page, 8)
    say(page, "one")
    say(page, "two")
    assert said(live) == {"one": ["> one", "> two"]}
    page.reload()
    expect(page.locator("#messages > li")).to_have_count(4)
    most(page, 8)
    before = texts(page)
    with page.expect_response("**/v1/chat/completions"):
        page.get_by_role("button", name="Regenerate").click()
    expect(page.get_by_role("button", name="Regenerate")).to_be_enabled()
    assert len(turns(live)) == 3
    assert texts(page)[:3] == before[:3]
    page.get_by_role("button", name="Edit", exact=True).nth(1).click()
    page.get_by_label("Edit your message").fill("three")
    with page.expect_response("**/v1/chat/completions"):
        page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    expect(page.get_by_role("heading", name="one (edited)")).to_be_visible()
    assert said(live) == {"one": ["> one", "> two"], "one (edited)": ["> one", "> three"]}
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#messages > li")).to_have_count(2)
    assert said(live) == {"one": ["> one", "> two"], "one (edited)": ["> one"]}
    # What was read before is not read again.
    say(page, "four")
    cached = page.locator("[data-meter=prompt] dd").inner_text().split()
    assert int(cached[0].replace(",", "")) > 10, cached


@pytest.mark.thorough
def test_a_cut_answer_goes_on_and_has_its_system_text(visit, live):
    page = visit(live)
    most(page, 5)
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("System text").fill("Be brief.")
    say(page, "one")
    first = texts(page)[1]
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("button", name="Regenerate")).to_be_enabled()
    path = f"/v1/sessions/{page.url.partition('#s=')[2]}"
    assert live.http().get(path).json()["system"] == "Be brief."
    cut, whole = live.http().get(f"{path}/turns").json()["data"]
    assert not cut["current"] and whole["current"] and whole["text"].startswith(cut["text"])
    assert len(whole["text"]) > len(cut["text"]) and texts(page)[1].startswith(first)
    page.evaluate("localStorage.clear()")


@pytest.mark.slow
def test_stop_keeps_what_was_said_and_frees_the_slot(visit, live, llm):
    # Something that the toy goes on about without end.
    endless = next(
        word
        for word in ("go", "class", "import", "def", "return", "x", "0", "if")
        if len(llm.chat([{"role": "user", "content": word}], temperature=0, max_tokens=400).ids)
        == 400
    )
    page = visit(live)
    most(page, 20000)
    page.get_by_label("Temperature").fill("0")
    say(page, endless, done=False)
    page.locator(".assistant[aria-busy] .text > div:not(:empty)").first.wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.locator("#live")).to_have_text("Stopped.")
    assert live.idle()
    assert said(live)[endless] == [f"> {endless}"]
    assert len(texts(page)) == 2


@pytest.mark.thorough
def test_conversations_of_programs_are_not_listed(visit, live):
    made = live.http().post("/v1/conversations", json={}).json()["id"]
    page = visit(live)
    most(page, 4)
    say(page, "mine")
    ids = [one["id"] for one in live.http().get("/v1/sessions").json()["data"]]
    assert made in ids
    expect(page.locator("#session-list button")).to_have_count(len(ids) - 1)
    live.http().delete(f"/v1/conversations/{made}")


@pytest.mark.slow
def test_a_real_server_that_keeps_nothing(visit, llm):
    with serving(llm) as bare:
        page = visit(bare)
        expect(page.locator("#server")).to_contain_text("conversations end with this page")
        most(page, 4)
        say(page, "one")
        say(page, "two")
        assert len(texts(page)) == 4
        page.faults.clear()  # the browser notes the 400 for /v1/sessions


@pytest.mark.slow
def test_where_several_models_are_served_one_is_chosen(visit, tmp_path):
    owl = write_adapter(tmp_path / "owl")
    llm = griffin.load(write_toy(tmp_path / "toy"), device="cpu", adapter={"owl": owl})
    asked = {"messages": [{"role": "user", "content": "one"}], "temperature": 0, "max_tokens": 6}
    with serving(llm, tmp_path / "store") as live, live.http() as http:

        def answer(name):
            body = asked | {"model": name}
            said = http.post("/v1/chat/completions", json=body).json()["choices"][0]
            return said["message"]["content"].strip()

        page = visit(live)
        chooser = page.locator("#choose")
        expect(chooser).to_have_value(NAME)
        most(page, 6)
        page.get_by_label("Temperature").fill("0")
        assert answer("owl") != answer(NAME)
        chooser.select_option("owl")
        expect(page.locator("#model")).to_contain_text("owl")
        say(page, "one")
        expect(chooser).to_be_disabled()  # what it has read, only it goes on with
        assert texts(page)[1] == answer("owl")
        page.get_by_role("button", name="New chat").click()
        expect(chooser).to_be_enabled()
        chooser.select_option(NAME)
        say(page, "one")
        assert texts(page)[1] == answer(NAME)
        listed = http.get("/v1/sessions").json()["data"]
        assert [one["model"] for one in listed] == [NAME, "owl"]
        page.locator("#session-list button").nth(1).click()
        expect(chooser).to_have_value("owl")
        page.reload()
        expect(chooser).to_have_value("owl")
        page.evaluate("localStorage.clear()")


def turns(live):
    (session,) = live.http().get("/v1/sessions").json()["data"]
    return live.http().get(f"/v1/sessions/{session['id']}/turns").json()["data"]
