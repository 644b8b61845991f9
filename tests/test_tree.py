"""What every file keeps to: no public class name twice, no circle of imports, 400 lines at most."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from tests.test_layering import modules

ROOT = Path(__file__).parents[1]
MOST = 400


def test_no_public_class_name_twice():
    homes = defaultdict(list)
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert not twice


def test_no_circle_of_files():
    """What only type checkers import counts, too."""
    trees = {name.removesuffix(".__init__"): tree for name, tree in modules().items()}
    imported = {name: set(files_of(tree.body, trees.keys())) for name, tree in trees.items()}
    assert circles(imported) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]
    body = ast.parse("if x:\n    import griffin.a\nfrom griffin.b import C\nimport d").body
    assert list(files_of(body, {"a", "b", "d"})) == ["a", "b"]


def test_no_file_is_long():
    rooms = ("griffin", "benchmarks", "examples", "mini", "tests", "tools")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in files}
    long = {path.relative_to(ROOT).as_posix(): n for path, n in lines.items() if n > MOST}
    assert not long


def files_of(body: Sequence[ast.stmt], known: Set[str]) -> Iterator[str]:
    """Yield the files of the package that statements import, but for those inside functions."""
    for node in body:
        names = []
        if isinstance(node, (ast.If, ast.Try)):
            yield from files_of([*node.body, *node.orelse], known)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            room, _, rest = name.partition(".")
            # What is no file is a name in one.
            file = rest if rest in known else rest.rpartition(".")[0]
            if room == "griffin" and file in known:
                yield file


def circles(imported: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of files that import each other, by whatever way."""
    reached = imported
    while True:
        further = {name: own.union(*(reached[n] for n in own)) for name, own in reached.items()}
        if further == reached:
            break
        reached = further
    groups = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in reached
        if name in reached[name]
    }
    return sorted(map(sorted, groups))
