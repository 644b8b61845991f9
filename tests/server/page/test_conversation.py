"""The chat page: options, answers that were cut, search and export, in a browser."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import expect

from tests.support.page_site import LONG
from tests.support.page_steps import say, texts, until


@pytest.fixture(autouse=True)
def forgetful(context, visit):
    """A browser that remembers nothing of other tests."""
    yield  # before the pages are closed
    for page in context.pages:
        page.evaluate("localStorage.clear()")


def option(page, label):
    page.locator("#options").evaluate("options => { options.open = true; }")
    return page.get_by_label(label)


def parts(site):
    """Return what was sent: the role and text of each message of each request."""
    return [[(m.role, m.content) for m in body.messages] for body in site.bodies]


def test_an_answer_that_was_cut_says_so_and_goes_on(visit, site):
    page = visit()
    say(page, "long")
    mark = page.locator(".assistant .mark")
    expect(mark).to_have_text("Cut: the answer reached its greatest length.")
    page.reload()  # the server knows it
    expect(mark).to_be_visible()
    page.get_by_role("button", name="Continue").dblclick()  # once is enough
    expect(page.locator(".assistant .text")).to_have_text("".join(LONG))
    expect(mark).to_be_hidden()
    expect(page.get_by_role("button", name="Regenerate")).to_be_enabled()
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)
    assert parts(site)[1:] == [[("user", "long"), ("assistant", LONG[0])]]
    (talk,) = site.talks.values()
    assert [turn.text for turn in talk.path()] == ["long", "".join(LONG)]
    assert len(talk.turns) == 4  # the cut one is a branch


@pytest.mark.slow
@pytest.mark.parametrize("one_turn", [True, False])
def test_an_answer_that_was_stopped_goes_on(visit, site, one_turn):
    site.one_turn = one_turn
    page = visit()
    say(page, "one")
    say(page, "slow", done=False)
    page.locator(".assistant[aria-busy] .text > div:not(:empty)").first.wait_for()
    page.keyboard.press("Escape")
    expect(page.locator(".assistant .mark").last).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()
    before = texts(page)[-1]
    page.get_by_role("button", name="Continue").click()
    until(lambda: len(site.bodies) == 3)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    said = parts(site)[2]
    assert [role for role, _ in said] == ["user", "assistant"] * 2
    assert said[-1][1].strip() == before and said[1][1].startswith("You said")


@pytest.mark.slow
def test_going_on_that_fails_leaves_what_there_is(visit, site):
    page = visit()
    say(page, "long")
    (talk,) = site.talks.values()
    talk.turns[0].text = "refuse"  # what is gone on with
    page.reload()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_contain_text("8 requests wait already")
    assert texts(page) == ["refuse", LONG[0].strip()] and talk.head == 2
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()
    expect(page.get_by_label("Message", exact=True)).to_have_value("")
    page.faults.clear()  # the browser notes the 429


def test_an_empty_answer_is_said_to_be_one(visit, site):
    page = visit()
    say(page, "nothing")
    expect(page.locator(".assistant .mark")).to_have_text("The model answered with nothing.")
    assert texts(page) == ["nothing", ""]
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    page.reload()
    expect(page.locator(".assistant .mark")).to_have_text("The model answered with nothing.")


def test_a_system_text_is_said_once_and_changed_where_it_stands(visit, site):
    page = visit()
    option(page, "System text").fill("Be brief.")
    say(page, "one")
    say(page, "two")
    page.get_by_role("button", name="New chat").click()
    expect(option(page, "System text")).to_have_value("Be brief.")  # for the next one, too
    page.go_back()
    expect(page.locator("#messages > li")).to_have_count(4)
    page.reload()
    expect(option(page, "System text")).to_have_value("Be brief.")
    option(page, "System text").fill("Be kind.")
    say(page, "three")
    option(page, "System text").fill("")
    say(page, "four")
    system = [[text for role, text in said if role == "system"] for said in parts(site)]
    assert system == [["Be brief."], [], ["Be kind."], [""]]
    (talk,) = site.talks.values()
    assert talk.system is None
    page.get_by_role("button", name="New chat").click()
    expect(option(page, "System text")).to_have_value("Be brief.")


@pytest.mark.slow
def test_an_edit_of_the_first_message_keeps_the_system_text(visit, site):
    page = visit()
    option(page, "System text").fill("Be brief.")
    say(page, "one")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_label("Edit your message").fill("other")
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text("You said other")
    assert parts(site)[1] == [("system", "Be brief."), ("user", "other")]


@pytest.mark.slow
def test_sampling_is_sent_and_survives_a_reload(visit, site):
    page = visit()
    expect(option(page, "Temperature")).to_have_attribute("placeholder", "0.7")
    chosen = {"Temperature": "0.2", "Top p": "0.9", "Top k": "40", "Min p": "0.05", "Seed": "7"}
    chosen |= {"Repetition penalty": "1.1", "Most tokens": "99"}
    for label, value in chosen.items():
        option(page, label).fill(value)
        option(page, label).blur()
    page.reload()
    say(page, "one")
    wanted = {"temperature": 0.2, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 7}
    wanted |= {"repetition_penalty": 1.1, "max_tokens": 99}
    assert site.bodies[0].sampling.items() >= wanted.items()
    option(page, "Top p").fill("3")
    page.locator("#options").evaluate("options => { options.open = false; }")
    page.get_by_label("Message", exact=True).fill("two")
    page.keyboard.press("Enter")
    assert option(page, "Top p").evaluate("input => !input.validity.valid")
    assert len(site.bodies) == 1
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("Message", exact=True).press("Enter")
    until(lambda: len(site.bodies) == 2)
    assert "top_p" not in site.bodies[1].sampling
    assert site.bodies[1].sampling["temperature"] == 0.7
    assert page.evaluate("Object.keys(localStorage).length") == 0


@pytest.mark.slow
def test_conversations_are_found_by_what_was_said(visit, site):
    page = visit()
    for text in ("soup", "bread"):
        page.get_by_role("button", name="New chat").click()
        say(page, text)
    items = page.locator("#session-list li")
    expect(items).to_have_count(2)
    page.get_by_label("Search conversations").fill("SAID soup")  # in an answer, not in a title
    expect(items).to_have_count(0)
    expect(page.get_by_text("No conversation has")).to_be_visible()
    page.get_by_label("Search conversations").fill("**Soup")
    expect(items).to_have_count(1)
    items.first.click()
    expect(page.get_by_role("heading", name="soup")).to_be_visible()
    page.get_by_label("Search conversations").fill("")
    expect(items).to_have_count(2)


@pytest.mark.slow
def test_export(visit, site, tmp_path):
    page = visit()
    option(page, "System text").fill("Be brief.")
    say(page, "what is 1/2?")
    say(page, "long")
    page.get_by_role("button", name="Regenerate").click()
    until(lambda: len(site.bodies) == 3)
    expect(page.get_by_role("button", name="Export")).to_be_enabled()
    files = {}
    for name in ("As JSON", "As Markdown"):
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        files[download.value.suggested_filename] = download.value.path().read_text()
    assert list(files) == ["what-is-1-2.json", "what-is-1-2.md"]
    saved, shown = json.loads(files["what-is-1-2.json"]), files["what-is-1-2.md"]
    first = ("user", "what is 1/2?"), ("assistant", "You said **what is 1/2?** after 0 turns.")
    wanted = [("system", "Be brief."), *first, ("user", "long"), ("assistant", LONG[0])]
    assert [(m["role"], m["content"]) for m in saved["messages"]] == wanted
    assert (saved["model"], len(saved["turns"])) == ("toy-2b-it", 6)
    assert shown.startswith("# what is 1/2?\n\nModel: toy-2b-it\n\n## System text\n\nBe brief.\n")
    assert shown.count("\n## You\n") == shown.count("\n## Answer\n") == 2
    page.get_by_role("button", name="Export").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_behind_a_prefix(visit, sites):
    far = sites(prefix="/llm")
    page = visit(server=far)
    expect(page.locator("#model")).to_have_text("toy-2b-it · 2.7 B parameters · int8")
    say(page, "hello")
    page.reload()
    expect(page.locator("#messages > li")).to_have_count(2)
    assert len(far.talks) == 1


@pytest.mark.slow
def test_all_of_it_without_sessions(visit, sites):
    bare = sites(keep=False)
    page = visit(server=bare)
    option(page, "System text").fill("Be brief.")
    say(page, "long")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".assistant .text")).to_have_text("".join(LONG))
    say(page, "nothing")
    expect(page.locator(".assistant .mark").last).to_have_text("The model answered with nothing.")
    page.get_by_label("Search conversations").fill("GIST of")
    expect(page.locator("#session-list li")).to_have_count(1)
    page.get_by_label("Search conversations").fill("else")
    expect(page.locator("#session-list li")).to_have_count(0)
    words = [("system", "Be brief."), ("user", "long")]
    went_on = [*words, ("assistant", LONG[0])]
    assert parts(bare) == [
        words,
        went_on,
        [*words, ("assistant", "".join(LONG)), ("user", "nothing")],
    ]
    page.faults.clear()  # the browser notes the 404 for /v1/sessions
