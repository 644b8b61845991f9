"""Amounts of memory on the command line, and in tables for people."""

from __future__ import annotations

import re
from typing import Any

import click

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_FORM = re.compile(r"(\d{1,19}(?:\.\d{1,19})?) ?([KMGT]?)(|B|iB)", re.ASCII | re.IGNORECASE)


class Size(click.ParamType):
    """Bytes above 0: 16G and 16GiB are 16 x 2^30, 16GB is 16 x 10^9, a bare number counts bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _FORM.fullmatch(str(value).strip())
        size = 0
        if match is not None:
            number, letter, unit = match.groups()
            base = 1000 if letter and unit.upper() == "B" else 1024
            size = round(float(number) * base ** _POWERS[letter.upper()])
        if not 0 < size < 1 << 63:
            self.fail(
                f"{value!r} is no amount of memory; write 16G, 16GiB, 16GB, 500M or a number of"
                " bytes"
            )
        return size


def binary(count: float) -> str:
    """Return bytes for people, in units of 1024: "16.06 GiB"."""
    unit = "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:,.0f} bytes" if unit == "bytes" else f"{count:,.2f} {unit}"
