"""Hooks of mkdocs: pages from outside docs/, a page of reference for each room, links that hold."""

# pyright: reportMissingImports=false

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

# What lies elsewhere in the checkout, and the page that it is in the site.
OUTSIDE = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/ray_serve/README.md": "ray_serve.md",
    "examples/ray_data/README.md": "ray_data.md",
}
# The public names of these, in this order.
REFERENCE = (
    *("griffin", "griffin.engine", "griffin.sessions", "griffin.conversation", "griffin.grammar"),
    *("griffin.checkpoints", "griffin.quant", "griffin.model", "griffin.ops", "griffin.capacity"),
)

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_PICTURE = re.compile(r"(!\[[^\]]*\]\()(?:docs/)([^)]+\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside and those of the reference."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for name in REFERENCE:
        # A page of a room shows what the room's __all__ has, with the docstrings.
        content = f"# {name}\n\n::: {name}\n"
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at pages of the site; what is none of its pages becomes plain text."""
    here = page.file.src_uri
    source = next((path for path, uri in OUTSIDE.items() if uri == here), f"docs/{here}")
    folder = PurePosixPath(source).parent

    def link(match: re.Match[str]) -> str:
        text, target, place = match[1], match[2], match[3] or ""
        if not target or "://" in target:
            return match[0]
        uri = page_of(normpath(str(folder / target)))
        if files.get_file_from_path(uri) is None:
            return text
        steps = "../" * here.count("/")
        return f"[{text}]({steps}{uri}{place})"

    return _LINK.sub(link, _PICTURE.sub(r"\1\2", markdown))


def page_of(path: str) -> str:
    """Return what a file of the checkout is called in the site."""
    if path == "docs":
        path = "docs/benchmarks/README.md"
    return OUTSIDE.get(path, path.removeprefix("docs/"))
