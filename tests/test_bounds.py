"""An upper bound for each dependency of which a class is one of ours, or whose own parts are used:
its next version may move what we stand on."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from tests.test_layering import modules

ROOT = Path(__file__).parents[1]
# Distributions that are not called as what is imported.
NAMES = {
    "prometheus_client": "prometheus-client",
    "huggingface_hub": "huggingface-hub",
    "lm_eval": "lm-eval",
}
LOOKED_INTO = {"h11"}  # no class of theirs is ours, but the states they go through are


def test_what_we_stand_on_is_bounded_above():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["serve"], *extras["hf"], *extras["eval"]]
    bounds = {
        wanted.name: any(part.operator in ("<", "<=", "==", "~=") for part in wanted.specifier)
        for wanted in map(Requirement, asked)
    }
    found = {root for tree in modules().values() for root in stood_on(tree)} | LOOKED_INTO
    assert {"torch", "click", "jinja2", "uvicorn", "msgspec", "h11"} <= found
    unbounded = {name for name in found if not bounds.get(NAMES.get(name, name), False)}
    assert not unbounded


def test_classes_and_parts_of_others_are_found():
    text = """
import torch.nn as nn
from click import Group as G, echo
import rich, numpy._core, json
from uvicorn._types import X
class A(nn.Module): ...
class B(G): ...
class C(json.JSONEncoder): ...
x = rich._inner.y
"""
    found = {"torch", "click", "rich", "numpy", "uvicorn"}
    assert set(stood_on(ast.parse(text))) == found


def stood_on(tree: ast.Module) -> Iterator[str]:
    """Yield the packages of others of which a class is a base here, or a private part is named."""
    origin: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                origin[alias.asname or alias.name.partition(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            for alias in node.names:
                origin[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    named = list(origin.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in origin and re.fullmatch(r"[\w.]+", rest):
                named.append(f"{origin[first]}.{rest}")
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                first = re.split(r"[.\[]", ast.unparse(base))[0]
                root = origin.get(first, "griffin").partition(".")[0]
                if _is_other(root):
                    yield root
    for path in named:
        root, _, rest = path.partition(".")
        if _is_other(root) and re.search(r"(^|\.)_(?!_)", rest):
            yield root


def _is_other(root: str) -> bool:
    return root not in sys.stdlib_module_names and root not in ("griffin", "__future__")
