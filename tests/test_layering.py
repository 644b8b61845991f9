"""Which room may know which: the table of docs, read off the imports of every file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import griffin

ROOT = Path(griffin.__file__).parent

# room -> rooms it may import, besides itself; a name with a dot allows that file alone
ALLOWED: dict[str, set[str]] = {
    "__init__": {
        *("llm", "loading", "answer", "document", "engine", "grammar", "model", "ops", "sampling"),
    },
    "foreign": set(),
    "outputs": set(),
    "ops": set(),
    "model": {"ops", "outputs"},
    "quant": {"model", "ops"},
    "checkpoints": {"foreign", "model", "outputs", "quant"},
    "adapters": {"checkpoints", "foreign", "model", "ops"},
    "text": {"foreign"},
    "sampling": set(),
    "engine": {"model", "sampling"},
    "capacity": {"engine", "model", "ops"},
    "grammar": {"text", "sampling"},
    "answer": {"engine", "model", "text"},
    "document": {"answer", "engine", "grammar", "text"},
    "prompt": {"engine", "text"},
    "llm": {"answer", "prompt", "document", "engine", "grammar", "sampling", "model", "text"},
    "loading": {
        *("adapters", "capacity", "defaults", "llm", "checkpoints", "engine", "quant", "model"),
        *("sampling", "text"),
    },
    "defaults": {"checkpoints", "foreign", "sampling"},
    "sessions": {"model", "engine", "outputs"},
    "conversation": {"llm", "answer", "sessions", "engine", "text", "model", "sampling"},
    "server": {
        "__init__",
        "llm",
        "answer",
        "conversation",
        "engine",
        "grammar",
        "sampling",
        "sessions",
        "text",
    },
    "batch": {"llm", "server"},
    "train": {"foreign", "model", "checkpoints", "text", "ops", "outputs"},
    "tune": {
        *("adapters", "capacity", "checkpoints", "engine", "foreign", "llm", "loading", "model"),
        *("quant", "sampling", "text", "train"),
    },
    "evaluate": {"engine", "llm", "loading", "model", "train"},
    "hf": {"llm", "model", "checkpoints", "train"},
    "bench": {"loading", "model", "ops", "outputs", "engine", "sampling", "sessions", "train"},
    "cli": {
        *(
            "__init__",
            "llm",
            "loading",
            "answer",
            "capacity",
            "document",
            "engine",
            "foreign",
            "grammar",
            "sampling",
            "text",
            "checkpoints",
            "model",
        ),
        *("ops", "outputs", "quant"),
        *("adapters", "conversation", "sessions", "server", "batch", "train", "tune"),
        *("bench", "evaluate"),
    },
}
# What only tests and benchmarks/ use, and what is in no wheel itself.
RIVALS = {"benchmarks", "tests", "tools", "gguf", "llama_cpp", "recurrentgemma", "transformers"}
# What a verb imports when it runs.
HEAVY = ("torch", "rich", "numpy", "tokenizers")
HEAVY_ROOMS = (
    *("llm", "loading", "answer", "capacity", "document", "engine", "model", "ops", "checkpoints"),
    *("train", "server", "text"),
)
LATE = ("cli.shared.progress", "cli.shared.trial")
NO_TORCH = (
    *("text", "server.protocol", "server.http", "server.fleet", "server.endpoints"),
    *("cli.__init__", "cli.shared.model_source", "foreign", "__init__"),
)
# Of an endpoint's folder what answers may know the model; all else is there when a body is read.
ANSWERS = re.compile(
    r"server\.endpoints\.(\w+\.route|completions\.scoring|ollama\.(answers|described))"
)
# Of the rooms that a verb imports when it runs, what its options are made of.
LIGHT = ("server.limits", "server.settings")


@cache
def modules() -> dict[str, ast.Module]:
    """Return every file of the package by its dotted name, parsed."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def files(room: str) -> list[str]:
    """Return the files of a room, or of a part of one, by their dotted names."""
    return [name for name in modules() if name == room or name.startswith(f"{room}.")]


def imports(tree: ast.AST) -> set[str]:
    """Return the dotted names a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str:
    """Return the room that an import such as griffin.model.state.State reaches."""
    parts = name.split(".")
    if len(parts) == 1:
        return "__init__"
    return (
        parts[1]
        if (ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").is_file()
        else "__init__"
    )


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room):
    """A file beside the rooms is one of its own.

    The command line needs griffin.__version__ and griffin.load, the server says its version; nobody
    else needs the package.
    """
    found = [
        f"griffin.{name} imports {imported}"
        for name in files(room)
        for imported in imports(modules()[name])
        if imported.split(".")[0] == "griffin" and room_of(imported) not in {room, *ALLOWED[room]}
    ]
    assert files(room) and not found, found


def test_every_file_is_in_a_room():
    assert {name.split(".")[0] for name in modules()} == ALLOWED.keys()


def test_nothing_imports_a_rival():
    for name, tree in modules().items():
        allowed = {"transformers"} if name.startswith("hf.") else set()
        found = imports(tree) | {
            node.args[0].value  # import_module("...")
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
            if isinstance(node.args[0].value, str)
            if ast.unparse(node.func).endswith("import_module")
        }
        rivals = {i for i in found if i.split(".")[0] in RIVALS - allowed}
        assert not rivals, f"griffin.{name} imports {rivals}"


def test_the_wheel_holds_the_package_alone():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["scikit-build"]["wheel"]["packages"] == ["griffin"]


@pytest.mark.parametrize("room", NO_TORCH)
def test_rooms_without_torch(room):
    found = [name for name in files(room) if not ANSWERS.fullmatch(name)]
    assert found, f"there is no griffin.{room}"
    for name in found:
        heavy = {
            i for i in imports(modules()[name]) if i.split(".")[0] in ("torch", "transformers")
        }
        if name == "cli.shared.model_source":
            heavy = {i for i in top_level_imports(modules()[name]) if i.startswith("torch")}
        assert not heavy, f"griffin.{name} imports {heavy}"


def test_bodies_bring_no_torch():
    """Nor does anything that they import: a request is parsed in milliseconds after a start."""
    rooms = ("server.protocol", "server.http", "server.fleet", "server.endpoints")
    names = [
        f"griffin.{name}"
        for name in modules()
        if name.startswith(rooms) and not ANSWERS.fullmatch(name)
    ]
    code = f"import sys, {', '.join(names)}; print('torch' in sys.modules)".replace(".__init__", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bodies = {f"griffin.{name}" for name in modules() if name.endswith((".body", ".reply"))}
    assert bodies <= set(names)
    assert len(names) > 50 and done.stdout.strip() == "False"


def top_level_imports(tree: ast.Module) -> set[str]:
    """Return what importing a file imports: not what its functions do, nor what only type checkers
    see."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= imports(node)
    return names


def test_verbs_import_heavy_things_when_they_run():
    """`griffin VERB --help` is instant, whichever the verb."""
    light = {f"griffin.{name}" for name in LIGHT}
    found = [
        f"griffin.{name} imports {imported} at its top"
        for name in set(files("cli")) - set(LATE)
        for imported in top_level_imports(modules()[name])
        if imported.split(".")[0] in HEAVY
        or (imported.startswith("griffin.") and room_of(imported) in HEAVY_ROOMS)
        or imported.startswith(tuple(f"griffin.{late}." for late in LATE))
        if ".".join(imported.split(".")[:3]) not in light
    ]
    assert not found, found


def test_no_verb_imports_another():
    """What verbs share lies in cli/shared, which imports no verb."""
    verbs = {name.split(".")[1] for name in files("cli")} - {"__init__", "shared"}
    found = [
        f"griffin.{name} imports {imported}"
        for name in files("cli")
        for imported in imports(modules()[name])
        if imported.split(".")[:2] == ["griffin", "cli"]
        if imported.split(".")[2] in verbs - {name.split(".")[1]}
    ]
    assert verbs and not found, found
