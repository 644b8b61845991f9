"""Packages of a few entries, from which a small corpus of the model in the box is made."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mini import packages, small_talk

NOUNS = [
    ("00000001", "03 n 01 entity 0 000 |", "that which is"),
    ("00000002", "03 n 01 animal 0 001 @ 00000001 n 0000 |", "a living thing that moves"),
    ("00000003", "05 n 02 dog 0 domestic_dog 0 001 @ 00000002 n 0000 |", 'it barks; "a good dog"'),
    ("00000004", "05 n 01 Rover 0 002 @i 00000003 n 0000 ! 00000002 n 0101 |", "one of them"),
    ("00000005", "03 n 01 tree 0 001 @ 00000001 n 0000 |", "it has leaves"),
]
TOYBOX = """#!/bin/sh
cat <<'END'
---toybox----------------------------------------------------

usage: toybox [COMMAND]

All of it.

---ls---------------------------------------------------------

usage: ls [-a] [FILE...]

List files. Sorted.

---clear------------------------------------------------------

Clear the screen.

END
"""
YAML = """categories:
- greetings
conversations:
- - Hello
  - 'It''s you'
- - How are
    you?
  - "Fine"
  - Good
- - Alone
- - Are you sentient?
  - I am.
"""
PAGE = """.. module:: os

.. function:: listdir(path='.')
   :noindex:

   Return a list of the names in *path*, as :func:`~os.scandir` has them.  More.

"""


def digits(number: int) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[number]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Return packages as if they had been unpacked, of a few entries each."""
    root = tmp_path_factory.mktemp("archives")

    def write(name: str, content: str | bytes) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    net = "wordnet-base/usr/share/wordnet/"
    for part in ("noun", "verb", "adj", "adv"):
        write(f"{net}data.{part}", "  1 a licence\n")
        write(f"{net}index.{part}", "  1 a licence\n")
    lines = "".join(f"{offset} {rest} {gloss}  \n" for offset, rest, gloss in NOUNS)
    write(f"{net}data.noun", f"  1 a licence\n{lines}00000009 05 n zz torn\n")
    index = ("entity", "animal", "dog", "rover", "tree")
    rows = "".join(f"{word} n 1 1 @ 1 1 0000000{n}  \n" for n, word in enumerate(index, 1))
    write(f"{net}index.noun", rows + "domestic_dog n 1 1 @ 1 0 00000003  \n")
    counted = "".join(f"{word}%1:05:00:: 1 7\n" for word in index)
    write(f"{net}cntlist.rev", counted + "cat%1:05:00:: 1 7\n")
    for name, text in (
        ("jargon", "foo\n n.\n\n    A word. More.\n"),
        ("devil", "BAD, n.  Not so good as it was.\n"),
    ):
        place = f"dict-{name}/usr/share/dictd/{name}"
        write(f"{place}.dict.dz", gzip.compress(text.encode()))
        write(
            f"{place}.index", f"{text[:3].lower()}\tA\t{digits(len(text))}\nbad line\n00x\tA\tB\n"
        )
    write("toybox/bin/toybox", TOYBOX).chmod(0o755)
    for name in small_talk.FILES:
        write(f"chatterbot-corpus/c/data/english/{name}.yml", YAML)
    write("chatterbot-corpus/c.dist-info/METADATA", "License: BSD\n")
    pages = "python3.11-doc/usr/share/doc/python3.11/html/_sources/library/"
    write(f"{pages}os.rst.txt", PAGE)
    for name in packages.PACKAGES:
        if name != "chatterbot-corpus":
            write(f"{name}/usr/share/doc/{name}/copyright", f"of {name}\n")
    return root
