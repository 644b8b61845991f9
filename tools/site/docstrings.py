"""Docstrings for the site: a first line that is text, and the rest as it stands in the code.

Ours name arguments, shapes and units in columns, which Markdown would run together.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import griffe


class AsWritten(griffe.Extension):
    """Put everything after the first paragraph of a docstring into a block of its own."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_written(obj.docstring.value)


def as_written(text: str) -> str:
    """Return a docstring as Markdown that keeps its columns."""
    first, gap, rest = text.partition("\n\n")
    return f"{first}\n\n```text\n{rest.strip(chr(10))}\n```" if gap and rest.strip() else text
