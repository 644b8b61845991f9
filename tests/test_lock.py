"""The locks that `make` installs: whole, of this pyproject.toml, and one within the other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def lines_of(lock: str) -> list[str]:
    text = (ROOT / lock).read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


# What `make demo` installs, and what `make test` does.
RUN, ALL = lines_of("requirements-run.lock"), lines_of("requirements.lock")
LOCKS = (
    (RUN, 30, ("build", "serve")),
    (ALL, 100, ("build", "dev", "eval", "flax", "hf", "kaggle", "plot", "serve")),
)


def name_of(text: str) -> str:
    return re.sub("[-_.]+", "-", text).lower()


@pytest.mark.parametrize(("lines", "least", "extras"), LOCKS)
def test_every_line_is_a_version_with_hashes_and_none_is_torchs(lines, least, extras):
    locked = re.compile(r"[a-z0-9-]+(\[[a-z]+\])?==\S+( ; .*?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert len(lines) > least and all(locked.fullmatch(line) for line in lines)
    assert not any(line.startswith(("torch", "nvidia", "cuda")) for line in lines)
    # Tests compile a GPU's kernels. Who runs griffin on one has Triton from the torch built for it.
    assert any(line.startswith("triton") for line in lines) is ("dev" in extras)


@pytest.mark.parametrize(("lines", "least", "extras"), LOCKS)
def test_it_holds_what_pyproject_asks_for(lines, least, extras):
    """Where this fails, pyproject.toml has changed: `make lock` writes the file anew."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"]
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    asked += [text for name in extras for text in optional[name]]
    for text in asked:
        wanted = Requirement(text)
        if name_of(wanted.name) in ("torch", "griffin-lm"):
            continue
        found = [
            line.split(" ")[0].partition("==")[2]
            for line in lines
            if re.match(re.escape(name_of(wanted.name)) + r"(\[.*?\])?==", line)
        ]
        assert found and all(map(wanted.specifier.contains, found)), text


def test_what_runs_is_of_the_versions_that_are_tested():
    def version(line: str) -> str:
        return line.split(" ")[0]

    assert {version(line) for line in RUN} <= {version(line) for line in ALL}
    heavy = ("jax", "langchain", "playwright", "transformers", "pytest", "openai")
    assert not any(line.startswith(heavy) for line in RUN)
