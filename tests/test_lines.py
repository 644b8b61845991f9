"""Lines of at most 100 columns, in every text file that people write."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100
ENDINGS = (
    *(".py", ".cpp", ".h", ".js", ".css", ".html"),
    *(".md", ".toml", ".txt", ".yml", ".sh"),
)
FOLDERS = ("benchmarks", "docs", "examples", "griffin", "native", "recipes", "tests", ".github")
# Written by programs: lock files, and data whose lines are what they are.
GENERATED = re.compile(r"requirements[^/]*\.txt$|lock[^/]*$|^griffin/data/|^tests/golden/")


def written() -> list[str]:
    """Return the files, those of git where this is a checkout."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = listed.stdout.splitlines()
    if listed.returncode:
        top = [path for path in ROOT.iterdir() if path.is_file()]
        inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
        names = [path.relative_to(ROOT).as_posix() for path in (*top, *inside) if path.is_file()]
    return [
        name
        for name in names
        if (name.endswith(ENDINGS) or Path(name).name in ("CMakeLists.txt", "Makefile"))
        and not GENERATED.search(name)
        and (ROOT / name).is_file()
    ]


def too_long(name: str, text: str) -> list[int]:
    """Return the numbers of the lines beyond 100 columns.

    In Markdown tables, links, code and printed output may be longer.
    """
    found, fenced = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if name.endswith(".md"):
            fence = line.lstrip().startswith(("```", "~~~"))
            fenced = fenced != fence
            if fenced or fence or re.search(r"^\s*\||^ {4}|^\t|\]\(|https?://", line):
                continue
        if len(line.expandtabs(4)) > COLUMNS:
            found.append(number)
    return found


@pytest.mark.parametrize("name", written())
def test_lines_are_short(name: str) -> None:
    lines = too_long(name, (ROOT / name).read_text(encoding="utf-8"))
    assert not lines, f"{name} has lines beyond {COLUMNS} columns: {lines}"


def test_what_markdown_may_hold() -> None:
    long = "x" * 101
    text = f"{long}\n| {long} |\n```\n{long}\n```\n    {long}\n[a]({long})\n{long}\n"
    assert too_long("page.md", text) == [1, 8]
    assert too_long("code.py", f"short\n{long}\n") == [2]
