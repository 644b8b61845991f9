"""The files of a source: which there are, and what lies in them, one record after another."""

from __future__ import annotations

import gzip
import io
import os
import re
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from griffin.foreign import open_file
from griffin.train.recipe.source import LINES, PARQUET

if TYPE_CHECKING:  # what works on blocks needs no model, nor torch
    from griffin.train.recipe import SourceRecipe

MOST_LINE = 16 << 20  # bytes; a longer line is no row
_BOM = b"\xef\xbb\xbf"
# Installed packages and caches lie inside the library's folder but are not the library.
_NOT_THE_LIBRARY = ("site-packages/**", "dist-packages/**", "**/__pycache__/**")
_RUN = "run.lock"  # in the folder of a run, whose log and lists are no documents
# What would be learned as one long text, and is hardly ever meant so.
_NO_TEXT = (
    *(".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xls", ".xlsx"),
    *(".pq", ".arrow", ".feather", ".zst", ".zip"),
)


class RawRecord(NamedTuple):
    """Hold what lies at one place of a source, not yet understood.

    name:    where: "notes/a.txt", "notes/long.txt#3" (a piece), "chats.jsonl:17" (a line or row).
    kind:    what content is: the bytes of a text; those of a line of JSON; a row's columns, a dict;
             why nothing can be read there, a str.
    size:    bytes that reading it took, about.
    """

    name: str
    kind: Literal["text", "line", "row", "bad"]
    content: object
    size: int


class SourceFile(NamedTuple):
    """Name a file of a source. name: relative to the source's path with / between the parts."""

    name: str
    path: Path
    format: Literal["text", "jsonl", "parquet"]


class FoundFiles(NamedTuple):
    """Hold the files of a source, sorted by name, and the names of those in its folder that are
    neither included nor excluded; hidden ones are not counted among these."""

    files: list[SourceFile]
    unmatched: list[str]


def find_files(source: SourceRecipe, folder: Path) -> FoundFiles:
    """Return the files of a source; ValueError if there is no such path, and for a table or an
    archive that is no text unless the source says so.

    folder: where a relative path starts.
    """
    if source.stdlib:
        root, excluded = Path(sysconfig.get_path("stdlib")), _NOT_THE_LIBRARY + source.exclude
    else:
        root, excluded = folder / Path(source.path).expanduser(), source.exclude
    if root.is_file():
        return FoundFiles([_file(root.name, root, source)], [])
    if not root.is_dir():
        raise ValueError(f"data: {root} is neither a folder nor a file")
    found = []
    wanted, refused = _regex(source.include, re.IGNORECASE), _regex(excluded)
    # A folder whose whole content is excluded need not be entered; there may be a whole environment
    # in it.
    closed = _regex(tuple(pattern for pattern in excluded if pattern.endswith("/**")))
    for place, folders, files in os.walk(root):
        base = Path(place).relative_to(root)
        if _RUN in files:
            folders[:] = []
            continue
        folders[:] = [
            name for name in folders if not closed.fullmatch((base / name).as_posix() + "/")
        ]
        found += [(base / name).as_posix() for name in files]
    there = [
        name for name in sorted(found) if not refused.fullmatch(name) and (root / name).is_file()
    ]
    files = [_file(name, root / name, source) for name in there if wanted.fullmatch(name)]
    unmatched = [name for name in there if not wanted.fullmatch(name) and not _is_hidden(name)]
    return FoundFiles(files, unmatched)


def read_text(file: SourceFile, most: int) -> Iterator[RawRecord]:
    """Yield a text file; one of more than `most` bytes in pieces, cut at ends of lines."""
    with open_file(file.path) as stream:
        whole = os.fstat(stream.fileno()).st_size <= most
        for number, piece in enumerate(cut_text(stream, most)):
            name = file.name if whole else f"{file.name}#{number}"
            bare = piece.removeprefix(_BOM) if number == 0 else piece
            yield RawRecord(name, "text", bare, len(piece))
        if not os.fstat(stream.fileno()).st_size:
            yield RawRecord(file.name, "text", b"", 0)


def cut_text(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Yield UTF-8 in pieces of at most `most` bytes (4 at least, for a letter), cut at ends of
    lines where there are some, and never within a letter."""
    held, most = b"", max(most, 4)
    while True:
        held += stream.read(most + 1 - len(held))
        if len(held) <= most:
            if held:
                yield held
            return
        end = held.rfind(b"\n", 0, most) + 1
        if not end:
            end = most
            while end > 1 and held[end] & 0xC0 == 0x80:
                end -= 1
        yield held[:end]
        held = held[end:]


def read_lines(file: SourceFile) -> Iterator[RawRecord]:
    """Yield the lines of a file that are not blank; what cannot be read is a "bad" record.

    A byte order mark goes. A line beyond `MOST_LINE` is passed over without being held.
    """
    packed = file.name.endswith(".gz")
    with open_file(file.path) as raw:
        stream = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw  # pyright: ignore
        number, before = 0, 0
        while True:
            number += 1
            name = f"{file.name}:{number}"
            try:
                line = stream.readline(MOST_LINE + 1)
                length = len(line)
                while length > MOST_LINE and not line.endswith(b"\n") and line:
                    line = stream.readline(MOST_LINE)
                    length += len(line)
            except (EOFError, OSError, zlib.error) as error:
                yield RawRecord(name, "bad", f"the file is torn here ({error})", 0)
                return
            if not length:
                return
            here = raw.tell()
            size, before = here - before, here
            if length > MOST_LINE:
                reason = f"the line has {length:,} bytes; at most {MOST_LINE:,} are read"
                yield RawRecord(name, "bad", reason, size)
                continue
            line = line.removeprefix(_BOM)  # files that were joined have them within, too
            if line.strip():
                yield RawRecord(name, "line", line, size)


def _file(name: str, path: Path, source: SourceRecipe) -> SourceFile:
    if source.format != "auto":
        return SourceFile(name, path, source.format)
    lower = name.lower()
    if lower.endswith(LINES):
        return SourceFile(name, path, "jsonl")
    if lower.endswith(_NO_TEXT):
        raise ValueError(
            f"data: {path} would be read as one plain text, by its ending; rows are read from"
            " .jsonl (a line of JSON each) and .parquet: write it as one of these, or say format ="
            " 'text' in its [[data.source]] if it is to be learned letter by letter"
        )
    return SourceFile(name, path, "parquet" if lower.endswith(PARQUET) else "text")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _regex(patterns: tuple[str, ...], flags: int = 0) -> re.Pattern[str]:
    """Translate glob patterns: `**/` is any number of folders, `*` and `?` stay inside one part."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    alternatives = []
    for pattern in patterns:
        pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        alternatives.append("".join(parts.get(piece, re.escape(piece)) for piece in pieces))
    return re.compile("|".join(alternatives) or r"(?!)", flags)
