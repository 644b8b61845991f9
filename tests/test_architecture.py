"""docs/architecture.md and CONTRIBUTING.md say what is: the table of doors is the law's, and the
files and functions that they name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_layering import ALLOWED

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
# `engine/core.py: Core.admit`, of which a line may end anywhere after the colon.
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.(?:py|cpp)):\s+([\w.:]+)`", PAGE)


def test_the_table_of_doors_is_the_laws():
    doors = PAGE.partition("## Doors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", doors, re.MULTILINE)
    assert {room: set(re.findall(r"`(\w+)`", row)) for room, row in rows} == ALLOWED


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_it_names_exists(file: str, name: str):
    path = ROOT / file if file.startswith("native/") else ROOT / "griffin" / file
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".cpp":
        assert re.search(rf"^[\w ].*\b{re.escape(name)}\(", text, re.MULTILINE)
        return
    body: list[ast.stmt] = ast.parse(text).body
    for part in name.split("."):
        found = [node for node in body if getattr(node, "name", None) == part]
        assert found, f"{file} has no {name}"
        body = getattr(found[0], "body", [])


def test_the_files_to_touch_exist():
    files = re.findall(r"`(\w+/[\w/]+\.(?:py|cpp|h|md))`", CONTRIBUTING)
    missing = [file for file in files if "NAME" not in file and not (ROOT / file).is_file()]
    assert len(NAMED) > 40 and len(files) > 40 and not missing, missing
