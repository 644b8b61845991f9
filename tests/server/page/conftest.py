"""A browser for the page, and servers for it to talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.browser import chromium
from tests.support.page_site import Site


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Return a headless Chromium; the tests that need it are skipped where there is none."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def sites() -> Iterator[Callable[..., Site]]:
    """Start servers that end with the module."""
    started: list[Site] = []

    def start(**options: Any) -> Site:
        site = Site(**options)
        site.start()
        started.append(site)
        return site

    yield start
    for site in started:
        site.stop()


@pytest.fixture(scope="module")
def shared(sites: Callable[..., Site]) -> Site:
    """Return one server for a module's tests."""
    return sites()


@pytest.fixture
def site(shared: Site) -> Site:
    """Return a server that nobody has spoken to."""
    shared.talks.clear()
    shared.bodies.clear()
    shared.key, shared.one_turn = None, False
    return shared


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    """Return a profile that a module's tests share; what a page keeps, it keeps by tab."""
    context = browser.new_context(locale="en-US")
    yield context
    context.close()


@pytest.fixture
def visit(browser: Any, context: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Open the page in a fresh tab; in the end nothing has failed or been asked of anybody else.

    page.faults: what the page's console said, its exceptions, and requests to other hosts. A test
                 that expects some clears the list.
    """
    pages: list[Any] = []

    def open(server: Site = site, wait: bool = True, **options: Any) -> Any:
        page = browser.new_page(locale="en-US", **options) if options else context.new_page()
        pages.append(page)
        page.set_default_timeout(60_000)
        page.faults = []

        def asked(request: Any) -> None:
            if not request.url.startswith((server.url + "/", "data:")):
                page.faults.append(f"asked for {request.url}")

        page.on("request", asked)
        page.on("pageerror", lambda error: page.faults.append(f"exception: {error}"))
        page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
        page.goto(server.url + "/")
        if wait:
            page.wait_for_selector("#server:not(:empty)", state="attached")
        return page

    yield open
    faults = [fault for page in pages for fault in page.faults]
    for page in pages:
        page.close()
    assert faults == []
