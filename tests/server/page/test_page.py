"""The chat page in a browser: what people do with it. The fast ones are what a page must do at
least."""

from __future__ import annotations

import pytest

from griffin.server.http.static import POLICY

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import expect

from tests.support.page_steps import say, texts, until


@pytest.mark.slow  # test_page_live.py does so too
def test_send_stream_reload_and_go_on(visit, site):
    page = visit()
    expect(page.get_by_text("Ask toy-2b-it something.")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    say(page, "hello")
    assert texts(page) == ["hello", "You said hello after 0 turns."]
    assert page.locator("#messages .assistant strong").inner_text() == "hello"
    page.reload()
    expect(page.locator("#messages > li")).to_have_count(2)
    say(page, "more")
    assert texts(page)[2:] == ["more", "You said more after 2 turns."]
    assert len(site.talks) == 1
    # The session knows what was said: only the new message travels.
    assert [[m.content for m in body.messages] for body in site.bodies] == [["hello"], ["more"]]
    assert {body.session_id for body in site.bodies} == set(site.talks)
    assert all(body.stream and body.include_usage for body in site.bodies)


def test_it_streams_and_escape_stops(visit, site):
    page = visit()
    say(page, "slow", done=False)
    expect(page.locator(".assistant[aria-busy] .text")).to_contain_text("word word")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator("[data-meter=speed] dd")).to_contain_text("tokens/s")
    assert page.locator("[data-meter=speed] rect").count() > 0
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.locator("#live")).to_have_text("Stopped.")
    (talk,) = site.talks.values()
    kept = talk.path()[-1].text
    assert 0 < len(kept.split()) < 400
    assert texts(page)[1] == kept.strip()
    expect(page.locator("#messages .assistant .mark")).to_have_text("Stopped.")
    say(page, "on")
    assert texts(page)[3] == "You said on after 2 turns."


@pytest.mark.slow
def test_a_message_right_after_a_stop_is_said(visit, site):
    page = visit()
    say(page, "slow", done=False)
    page.locator(".assistant[aria-busy] .text > div:not(:empty)").first.wait_for()
    page.get_by_label("Message", exact=True).fill("on")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text("You said on after 2 turns.")


@pytest.mark.slow
def test_stop_before_the_first_word_gives_the_message_back(visit, site):
    page = visit()
    say(page, "never", done=False)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("never")
    expect(page.locator("#live")).to_contain_text("Nothing of it was kept")
    page.get_by_label("Message", exact=True).fill("hello")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#messages .assistant .text")).to_have_text("You said hello after 0 turns.")
    assert texts(page)[0] == "hello"


@pytest.mark.slow
def test_fork_leaves_the_first_as_it_was(visit, site):
    page = visit()
    say(page, "one")
    say(page, "two")
    page.get_by_role("button", name="Fork here").first.click()
    expect(page.get_by_role("heading", name="one (fork)")).to_be_visible()
    assert texts(page) == ["one", "You said one after 0 turns."]
    say(page, "three")
    page.get_by_role("button", name="Fork", exact=True).click()
    expect(page.locator("#session-list li")).to_have_count(3)
    assert sorted(len(talk.path()) for talk in site.talks.values()) == [4, 4, 4]
    # Back to where it came from, by the list and by the browser's own button.
    page.get_by_role("navigation").get_by_role("button").filter(has_text="4 tokens").or_(
        page.locator("#session-list button").filter(has=page.get_by_text("one", exact=True))
    ).first.click()
    expect(page.locator("#messages")).to_contain_text("You said two after 2 turns.")
    page.go_back()
    expect(page.locator("#messages")).to_contain_text("You said three after 2 turns.")


@pytest.mark.slow  # of these test_page_live.py has the usual way
@pytest.mark.parametrize(
    "one_turn",
    [
        pytest.param(True, id="a turn is a message and its answer"),
        pytest.param(False, id="a turn is a message"),
    ],
)
def test_undo_redo_regenerate_and_edit(visit, site, one_turn):
    site.one_turn = one_turn
    each = 1 if one_turn else 2
    page = visit()
    say(page, "one")
    say(page, "two")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#messages > li")).to_have_count(2)
    page.get_by_role("button", name="Redo").click()
    expect(page.locator("#messages > li")).to_have_count(4)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#messages > li")).to_have_count(2)
    say(page, "other")
    assert texts(page)[3] == f"You said other after {each} turns."
    (talk,) = site.talks.values()
    page.get_by_role("button", name="Regenerate").dblclick()  # once is enough
    until(lambda: len(talk.turns) == 4 * each)
    expect(page.get_by_role("button", name="Regenerate")).to_be_enabled()
    assert texts(page)[3] == f"You said other after {each} turns."
    assert (len(talk.turns), len(talk.path())) == (4 * each, 2 * each)
    # An earlier message: in a fork, and the first conversation stays whole.
    page.get_by_role("button", name="Edit", exact=True).nth(1).click()
    field = page.get_by_label("Edit your message")
    expect(field).to_be_focused()
    expect(field).to_have_value("other")
    field.fill("edited")
    field.press("Enter")
    expect(page.locator("#messages")).to_contain_text(f"You said edited after {each} turns.")
    expect(page.get_by_role("heading", name="one (edited)")).to_be_visible()
    assert texts(page)[:2] == ["one", "You said one after 0 turns."]
    page.get_by_role("button", name="Edit", exact=True).first.click()
    page.get_by_label("Edit your message").fill("first")
    page.get_by_role("button", name="Send in a fork").click()
    expect(page.locator("#messages")).to_contain_text("You said first after 0 turns.")
    assert len(texts(page)) == 2
    assert sorted(len(t.path()) for t in site.talks.values()) == [each, 2 * each, 2 * each]


@pytest.mark.slow
def test_regenerate_that_fails_keeps_the_old_answer(visit, site):
    page = visit()
    say(page, "hello")
    (talk,) = site.talks.values()
    talk.turns[0].text = "refuse"  # what will be said again
    page.reload()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.get_by_role("alert")).to_contain_text("8 requests wait already")
    assert texts(page) == ["refuse", "You said hello after 0 turns."]
    assert talk.head == 2
    expect(page.get_by_label("Message", exact=True)).to_have_value("")
    page.faults.clear()  # the browser notes the 429


@pytest.mark.slow
def test_rename_and_delete(visit, site):
    page = visit()
    say(page, "one")
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Soup")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Soup")).to_be_visible()
    assert [talk.title for talk in site.talks.values()] == ["Soup"]
    page.get_by_role("button", name="Delete").click()
    page.keyboard.press("Escape")
    assert len(site.talks) == 1
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#session-list li")).to_have_count(0)
    assert not site.talks
    expect(page.get_by_text("Ask toy-2b-it something.")).to_be_visible()


@pytest.mark.slow
def test_meters_tell_the_servers_numbers(visit, site):
    page = visit()
    say(page, "one")
    say(page, "two")
    values = page.locator("#meters dd").all_inner_texts()
    assert values[0] == "42 tokens/s"
    assert values[1] == "15 cached, 5 read"
    tokens = next(iter(site.talks.values())).object().tokens
    assert values[2] == f"17.2 MB for {tokens} tokens"
    width = float(page.locator("[data-meter=prompt] .fill").get_attribute("width"))
    assert width == pytest.approx(120 * 15 / 20, abs=0.01)
    width = float(page.locator("[data-meter=state] .fill").get_attribute("width"))
    assert width == pytest.approx(120 * tokens / 2048, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["break", "refuse"])
def test_failures_are_shown_and_nothing_is_lost(visit, site, text):
    page = visit()
    say(page, "one")
    say(page, text)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_value(text)
    said = page.get_by_role("alert").inner_text()
    assert ("its log has more" in said) if text == "break" else ("Try again in 3 s." in said)
    assert len(next(iter(site.talks.values())).turns) == 2
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert len(site.bodies) == 3
    say(page, "two")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert texts(page)[2:] == ["two", "You said two after 2 turns."]
    page.faults.clear()  # the browser notes the 429


@pytest.mark.slow
def test_a_key_is_asked_for_only_if_needed_and_stays_in_the_tab(visit, site):
    page = visit()
    assert page.evaluate("sessionStorage.length") == 0
    site.key = "right-key-of-16-chars"
    page = visit(wait=False)
    field = page.get_by_label("API key")
    expect(field).to_have_attribute("type", "password")
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("a wrong API key was sent")
    field.fill(site.key)
    page.keyboard.press("Enter")
    expect(page.locator("#server")).to_contain_text("toy-2b-it")
    expect(field).to_have_value("")
    assert (
        page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])")
        == f'[{{"griffin-key":"{site.key}"}},{{}},""]'
    )
    page.reload()
    say(page, "hello")
    assert texts(page)[1] == "You said hello after 0 turns."
    page.faults.clear()  # the browser notes the 401


@pytest.mark.slow  # test_page_live.py looks at it too
def test_a_server_that_keeps_no_sessions(visit, sites):
    page = visit(server=sites(keep=False))
    expect(page.locator("#server")).to_contain_text("conversations end with this page")
    say(page, "one")
    say(page, "two")
    assert texts(page)[3] == "You said two after 3 turns."  # the whole conversation was sent
    page.get_by_role("button", name="Edit", exact=True).nth(1).click()
    page.get_by_label("Edit your message").fill("three")
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text("You said three after 3 turns.")
    expect(page.locator("#session-list li")).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#messages > li")).to_have_count(2)
    page.get_by_role("button", name="Redo").click()
    expect(page.locator("#messages > li")).to_have_count(4)
    page.faults.clear()  # the browser notes the 404 for /v1/sessions


def test_what_a_model_writes_does_nothing(visit, site):
    page = visit()
    title = page.title()
    say(page, "evil")
    expect(page.locator(".assistant .text")).to_contain_text("<img src=x")
    assert page.locator("#messages img, #messages script").count() == 0
    assert page.locator(".assistant .text a").evaluate_all("all => all.map(a => a.href)") == [
        "http://elsewhere.test/x.png"
    ]
    assert page.title() != "1" and title


@pytest.mark.slow
def test_by_keyboard_and_ear(visit, site):
    page = visit()
    assert page.get_by_role("main").count() == page.get_by_role("navigation").count() == 1
    page.keyboard.type("line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_contain_text("after 0 turns")
    assert site.bodies[0].messages[0].content == "line one\nline two"
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    # Everything that can be clicked has a name and is reached with the tabulator, from top to
    # bottom.
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, textarea, summary')].filter(e =>"
        " e.checkVisibility() && !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e"
        " => e.outerHTML)"
    )
    assert nameless == []
    page.locator(".skip").focus()
    order = []
    for _ in range(20):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate("document.activeElement.id || document.activeElement.textContent")
        )
        if order[-1] == "send":
            break
    wanted = [
        "new",
        "undo",
        "fork",
        "rename",
        "export",
        "delete",
        "log",
        "Edit",
        "Copy",
        "Regenerate",
        "message",
        "send",
    ]
    assert [name for name in order if name in wanted] == wanted, order


@pytest.mark.slow
def test_phone(visit, site):
    page = visit(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    say(page, "rich")
    # Nothing is wider than the screen; a wide table scrolls in itself.
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate(
        "document.getElementById('log').scrollWidth <= document.getElementById('log').clientWidth"
    )
    menu = page.get_by_role("button", name="Conversations")
    expect(page.get_by_role("button", name="New chat")).to_be_hidden()
    menu.click()
    expect(menu).to_have_attribute("aria-expanded", "true")
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_text("Ask toy-2b-it something.")).to_be_visible()
    menu.click()
    page.locator("#session-list button").click()
    expect(page.locator("#messages h4")).to_have_text("What a state is")


@pytest.mark.slow
def test_light_and_dark_are_readable(visit, site):
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        say(page, "rich")
        ratios = page.evaluate(CONTRAST)
        assert min(ratios.values()) >= 4.5, (scheme, ratios)


@pytest.mark.thorough
def test_the_policy_stops_what_is_not_ours(visit, site):
    page = visit()
    assert "unsafe" not in POLICY
    done = page.evaluate("""async () => {
            const script = document.createElement("script");
            script.textContent = "window.injected = 1";
            document.body.append(script);
            const far = await fetch("https://elsewhere.test/").then(() => "fetched", () =>
            "refused"); return [window.injected ?? null, far];
        }""")
    assert done == [None, "refused"]
    page.faults.clear()  # both are noted


# The contrast of what is read with what it stands on, WCAG 2 (4.5 is asked for).
CONTRAST = """() => {
  const light = (color) => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!color.startsWith("rgba(0, 0, 0, 0")) return color;
    }
  };
  const found = {};
  for (const where of ["#title", "#keys", "#send", "#new", "#undo", ".user .text", ".assistant p",
    "figcaption", "pre code", "blockquote", "blockquote a", "#meters dt", "#session-list .faint",
    "#server"]) {
    const element = document.querySelector(where);
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort();
    found[where] = (b + 0.05) / (a + 0.05);
  }
  return found;
}"""
