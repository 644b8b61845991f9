"""Lines of at most 100 columns, in every text file that people write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100
FOLDERS = (
    "benchmarks",
    "docs",
    "examples",
    "griffin",
    "mini",
    "native",
    "recipes",
    "tests",
    ".github",
)
ENDINGS = {".py", ".cpp", ".h", ".js", ".css", ".html", ".md", ".toml", ".txt", ".yml", ".sh"}
# Written by programs, or printed by them.
GENERATED = re.compile(r"/requirements[^/]*\.txt$|/data/|/golden/")
# Markdown's tables, links and indented code; in a line of code what a type checker or linter reads.
FREE_IN_MARKDOWN = re.compile(r"^\s*\||^ {4}|^\t|\]\(|https?://")
PRAGMA = re.compile(r"  # (pyright|type|noqa).*")


def written() -> Iterator[Path]:
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        files += (ROOT / folder).rglob("*")
    for path in sorted(files):
        name = "/" + path.relative_to(ROOT).as_posix()
        if (path.suffix in ENDINGS or path.name == "Makefile") and not GENERATED.search(name):
            yield path


def too_long(name: str, text: str) -> list[int]:
    """Return the numbers of the lines beyond 100 columns that have no right to be."""
    found, fenced = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if name.endswith(".md"):
            fence = line.lstrip().startswith(("```", "~~~"))
            fenced = fenced != fence
            if fenced or fence or FREE_IN_MARKDOWN.search(line):
                continue
        if len(PRAGMA.sub("", line.expandtabs(4))) > COLUMNS:
            found.append(number)
    return found


def test_lines_are_short() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in written()
        if (lines := too_long(path.name, path.read_text(encoding="utf-8")))
    }
    assert not found, f"lines beyond {COLUMNS} columns: {found}"


def test_what_may_be_longer() -> None:
    long = "x" * 101
    text = f"{long}\n| {long} |\n```\n{long}\n```\n    {long}\n[a]({long})\n{long}\n"
    assert too_long("page.md", text) == [1, 8]
    assert too_long("code.py", f"short\n{long}\nshort{' ' * 95}  # noqa: E501\n") == [2]
