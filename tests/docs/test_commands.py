"""What the pages say of the command line: verbs and options that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from griffin.cli import main
from tests.support.pages import ROOT

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
# The words after `griffin`, up to a pipe.
_COMMAND = re.compile(r"(?:^|[( ])griffin +(?!serves )([a-z]+(?: +[^\s|;&]+)*)")
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")))
]


def commands(text: str) -> Iterator[list[str]]:
    """Give the words of each command that a page shows in code."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    blocks = [line for line in text.splitlines() if line.startswith("    ")]
    fenced = [
        block
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
        if language in ("", "sh", "bash", "console")
    ]
    for code in (*spans, *blocks, *(line for block in fenced for line in block.splitlines())):
        for found in _COMMAND.finditer(_QUOTED.sub("X", code.partition("#")[0])):
            yield found[1].split()


def unknown(words: list[str]) -> list[str]:
    """Return the options of a command that it does not have; all of it for a verb that is none."""
    context = click.Context(main)
    command = main.get_command(context, words[0])
    if command is None:
        return words[:1]
    known = {name for each in (main, command) for p in each.params for name in p.opts}
    inner: dict[str, click.Command] = getattr(command, "commands", {})
    for word in words[1:]:
        if word in inner:
            known |= {name for parameter in inner[word].params for name in parameter.opts}
            break
    known |= {off for p in command.params for off in p.secondary_opts} | {"--help", "-h", "--debug"}
    given = (word.partition("=")[0].rstrip(",.:)") for word in words if word.startswith("-"))
    return [word for word in given if re.fullmatch("--?[a-z][a-z-]*", word) and word not in known]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_what_there_is(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = {" ".join(words): unknown(words) for words in commands(text)}
    assert {command: wrong for command, wrong in found.items() if wrong} == {}


def test_pages_are_read_and_slips_seen() -> None:
    found = [words for page in PAGES for words in commands((ROOT / page).read_text("utf-8"))]
    assert len(found) > 150 and {"serve", "bench", "state"} <= {words[0] for words in found}
    (slip,) = commands("    griffin plan --format int8 'a b' --ram 16G   # no --such option")
    assert unknown(slip) == ["--format"] and unknown(["talk"]) == ["talk"]


def test_the_readme_is_short() -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text("utf-8"), flags=re.M | re.S)
    words = [line.split() for line in text.splitlines() if not line.startswith(("    ", "|"))]
    assert sum(map(len, words)) <= 900
