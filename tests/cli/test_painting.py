"""Markdown in the terminal: what is painted how, and that nothing is lost, whatever comes."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.cli.chat.painting import Painter

_STYLE = re.compile("\x1b\\[(\\d+)m")
_NAMES = {"1": "B", "22": "/", "3": "I", "23": "/", "4": "U", "24": "/", "36": "C", "39": "/"}
_NAMES |= {"2": "F"}


def paint(*pieces: str) -> str:
    painter = Painter()
    return "".join([painter.push(piece) for piece in pieces]) + painter.finish()


def named(text: str) -> str:
    """Paint a text, with names instead of codes: {B bold, {I italic, {U, {C colour, {F faint."""
    shown = _STYLE.sub(lambda found: f"{{{_NAMES[found[1]]}}}", paint(text))
    return shown.replace("{/}", "}")


PAINTED = {
    "a **bold** and *slanted* word": "a {B}bold} and {I}slanted} word",
    "***both***": "{I}{B}both}}",
    "`code` and ``a ` b``": "{C}code} and {C}a ` b}",
    "**a `b` c**": "{B}a {C}b} c}",
    "# Head *ing*\ntext": "{B}Head {I}ing}}\ntext",
    "- one\n  * two\n+ three": "• one\n  • two\n• three",
    "> said\n> - listed": "{F}│ }said\n{F}│ }• listed",
    "[paper](https://x.y/z)": "{U}paper}{F} (https://x.y/z)}",
    "---\n": "{F}" + "─" * 20 + "}\n",
    "```py\n# **no** head\n```\n# head": "{F}```py}\n{C}# **no** head}\n{F}```}\n{B}head}",
    r"\*not\* \w": r"*not* \w",
    # Shown as they were written.
    "2 * 3 * 4 and **": "2 * 3 * 4 and **",
    "**open\nand `open": "**open\nand `open",
    "snake_case __init__ _x_": "snake_case __init__ _x_",
    "[x] [y](z": "[x] [y](z",
    "#tag, 1. one, a - b": "#tag, 1. one, a - b",
    "a " + "*" * 7 + "b": "a " + "*" * 7 + "b",
    "\x1b[2J\x07\x9b": "␛[2J␇\ufffd",
}


@pytest.mark.parametrize("text", PAINTED)
def test_what_is_painted_how(text):
    shown = named(text)
    assert shown == PAINTED[text]
    assert paint(*text) == paint(text)


_MARKS = ["*", "**", "***", "`", "``", "```", "~~~", "\n", "# ", "- ", "> ", "---", "[", "](", ")"]
_REST = ["\\", " ", "\t", "word", "x_y", "\x1b[0m", "1. ", "é漢"]
_HARD = st.lists(st.sampled_from(_MARKS + _REST) | st.text(max_size=3), max_size=30).map("".join)


@given(text=_HARD, cuts=st.sets(st.integers(0, 90), max_size=8))
def test_nothing_is_lost_however_it_comes(text, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    shown = paint(*(text[start:end] for start, end in pairwise(places)))
    assert shown == paint(text)
    bare = _STYLE.sub("", shown)
    assert [c for c in bare if c.isalnum()] == [c for c in text if c.isalnum()]
    assert all(c.isprintable() or c in "\n\t" for c in bare if c not in text)
    assert "\x1b" not in bare and bare.count("\n") == text.count("\n")
    # What is turned on is turned off, and in the end nothing is on.
    last = {"1": "22", "2": "22", "3": "23", "4": "24", "36": "39"}
    codes = _STYLE.findall(shown)
    for on, off in last.items():
        own = [code for code in codes if code in (on, off)]
        assert not own or own[-1] == off


def test_plain_words_go_out_at_once():
    painter = Painter()
    assert painter.push("The") == "The" and painter.push(" quick") == " quick"
    assert (
        painter.push(" **very") == " "
        and painter.push(" quick** f") == "\x1b[1mvery quick\x1b[22m f"
    )


@pytest.mark.thorough
@pytest.mark.parametrize("part", ["**a", "*", "`", "[a](", "\n- ", "\n```\n", "\\", "> ", "*a*"])
def test_the_work_is_linear(part):
    def seconds(count: int) -> float:
        text, painter = part * count, Painter()
        begun = time.process_time()
        for char in text:
            painter.push(char)
        painter.finish()
        paint(text)
        return time.process_time() - begun

    short = min(seconds(1000) for _ in range(3))
    assert seconds(8000) < 24 * short + 0.05
