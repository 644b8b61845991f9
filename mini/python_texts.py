"""Python's library, without its tests, and the sources of its documentation."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "encodings",
    "pydoc_data",
    "__pycache__",
}


class Function(NamedTuple):
    """A function with its docstring's first sentence. name: with its module (`os.path.join`)."""

    name: str
    signature: str
    what: str


def library(broken: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (module, source) of the library of the Python that runs this, without tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        named = inside.name.startswith("test_") or inside.stem.endswith("_test")
        if named or _LEFT_OUT & set(inside.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            broken.append(str(inside))
            continue
        if text.strip():
            module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
            yield module, text


def functions(module: str, source: str, broken: list[str]) -> Iterator[Function]:
    """Yield the public functions and methods of a module that say in a sentence what they do."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        broken.append(f"{module}: {error.msg}")
        return
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        of = f".{node.name}" if isinstance(node, ast.ClassDef) else ""
        for each in inside:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                what = first_sentence(ast.get_docstring(each) or "")
                if what:
                    signature = f"{each.name}({ast.unparse(each.args)})"
                    yield Function(f"{module}{of}.{each.name}", signature, what)


def documentation(folder: Path, broken: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (page, text) of the documentation's sources, the lists of its authors left out."""
    root = folder / "usr/share/doc/python3.11/html/_sources"
    for path in sorted(root.rglob("*.rst.txt")):
        page = str(path.relative_to(root)).removesuffix(".rst.txt")
        if page.startswith(("license", "copyright", "contents", "whatsnew/changelog")):
            continue
        try:
            yield page, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            broken.append(page)


_DIRECTIVE = re.compile(
    r"^\.\. (?:function|method|class|exception|data)::[ ]+(?P<sign>[^\n]+)\n"
    r"(?:[ ]{3}+[^\n]*\n)*?\n(?P<what>(?:[ ]{3}[^ \n][^\n]*\n)+)",
    re.MULTILINE,
)
_ROLE = re.compile(r":[\w:+-]+:`(?:[^`<]*<)?[!~]?([^`>]+)>?`")


def described(text: str) -> Iterator[Function]:
    """Yield what a page of the documentation describes: names with modules, and one sentence."""
    module = re.search(r"^\.\. (?:module|currentmodule):: (\S+)", text, re.MULTILINE)
    before = f"{module[1]}." if module else ""
    for match in _DIRECTIVE.finditer(text):
        sign = match["sign"].strip().replace("\\", "")
        name = sign.split("(")[0].split()[-1] if sign.split("(")[0].split() else ""
        if re.fullmatch(r"[\w.]+", name) and (what := first_sentence(plain(match["what"]))):
            full = name if name.startswith(before) else before + name
            yield Function(full, sign, what)


def plain(text: str) -> str:
    """Return reStructuredText without its roles and marks."""
    text = _ROLE.sub(r"\1", text).replace("``", "").replace("\\ ", "")
    return re.sub(r"(?<!\w)\*{1,2}([^*\n]+)\*{1,2}(?!\w)", r"\1", text)


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring in one line; "" where it is no sentence of words."""
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    one = " ".join(paragraph.split())
    match = re.match(r"(.{12,220}?[.!])(?:\s|$)", one)
    sentence = match[1] if match else one if 12 <= len(one) <= 220 else ""
    wordy = sum(character.isalpha() or character == " " for character in sentence)
    return sentence if wordy > 0.75 * len(sentence) and "::" not in sentence else ""
