"""Official clients that this project does not depend on, each in an environment of its own."""

from __future__ import annotations

import inspect
import json
import subprocess
import textwrap
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Foreign:
    """A Python that has a client, and a way to run code there.

    prelude: code that makes `clients`, what functions are given; {url} in it is the server's.
    """

    def __init__(self, python: Path, prelude: str) -> None:
        self._python = python
        self._prelude = prelude

    def run(self, code: str) -> str:
        """Run code; return what it prints. It must end well."""
        done = subprocess.run(
            [self._python, "-c", code], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function there, by its source: with `clients` and the arguments, which are JSON as
        is what comes back."""
        source = textwrap.dedent(inspect.getsource(function))
        given = ", ".join(["*clients", *map(repr, arguments)])
        call = f"print(json.dumps({function.__name__}({given})))"
        return json.loads(self.run(f"import json\n{self._prelude}\n{source}\n{call}"))


def python_with(folder: Path, *packages: str) -> Path:
    """Make an environment that has packages; skip the test where they cannot be installed."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *packages],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"{', '.join(packages)} cannot be installed here: {why[:200]}")
    return python
