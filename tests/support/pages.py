"""The Python that a page of the documentation shows, run as it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]


def run_page(page: Path, instead: Mapping[str, str] | None = None) -> int:
    """Run a page's Python blocks one after another, in one namespace; return how many there are.

    instead: texts to put in the place of others, such as a server's address. A traceback names the
    page and its line.
    """
    text = page.read_text(encoding="utf-8")
    for old, new in (instead or {}).items():
        text = text.replace(old, new)
    document = Document(text, str(page))
    for region in PythonCodeBlockParser()(document):
        document.add(region)
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    return len(examples)
