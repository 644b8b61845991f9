"""What toybox says of its commands: how each is called, and what it does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A command: its name, how it is called, one sentence on what it does, and the whole text."""

    name: str
    usage: str
    what: str
    text: str


def commands(folder: Path, broken: list[str]) -> Iterator[Command]:
    """Yield the commands of the package, as the program itself describes them."""
    said = subprocess.run(
        [folder / "bin/toybox", "help", "-a"], capture_output=True, text=True, timeout=60
    ).stdout
    parts = re.split(r"(?m)^-{3}.*-{40,}$", said)
    for part in parts[2:]:  # before the first rule stands nothing, after it toybox itself
        text = part.strip()
        match = re.match(r"usage: (?P<usage>\S.*(?:\n(?! *\n).+)*)\n\s*\n(?P<rest>(?s:.+))", text)
        if match is None:
            if text:
                broken.append(f"toybox: {text.splitlines()[0]}")
            continue
        usage = " ".join(match["usage"].split())
        first = re.split(r"(?<=\.)\s|\n\s*\n", match["rest"].strip(), maxsplit=1)[0]
        yield Command(usage.split()[0], usage, " ".join(first.split()), text)
