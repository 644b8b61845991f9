"""What people do on the page, and what they see."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def say(page: Any, text: str, done: bool = True) -> None:
    """Write a message and send it; wait until the answer is over if `done`."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    if done:
        page.get_by_role("button", name="Send", exact=True).wait_for()


def texts(page: Any) -> list[str]:
    """Return the texts of all messages."""
    return [text.strip() for text in page.locator("#messages .text").all_inner_texts()]


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; AssertionError after a minute."""
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to be within a minute")
