"""The file of a picture as an option, refused before what takes long and not after it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

_ENDINGS = (".png", ".svg", ".pdf")


class Picture(click.Path):
    """A file to draw into: a PNG, SVG or PDF by its ending, PNG without one, in a folder that is
    there."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.suffix not in ("", *_ENDINGS):
            self.fail(f"{path} ends in none of {', '.join(_ENDINGS)}", param, ctx)
        if not path.absolute().parent.is_dir():
            self.fail(f"there is no folder {path.parent} to write {path.name} to", param, ctx)
        return path
