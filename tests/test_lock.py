"""requirements.lock, which `make` installs: whole, and of this pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text().replace("\\\n", "").splitlines()
    if line and not line.lstrip().startswith("#")
]


def name_of(text: str) -> str:
    return re.sub("[-_.]+", "-", text).lower()


def test_every_line_is_a_version_with_hashes_and_none_is_torchs():
    locked = re.compile(r"[a-z0-9-]+(\[[a-z]+\])?==\S+( ; .*?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert len(LINES) > 100 and all(locked.fullmatch(line) for line in LINES)
    assert not any(line.startswith(("torch", "nvidia", "cuda", "triton")) for line in LINES)


def test_it_holds_what_pyproject_asks_for():
    """Where this fails, pyproject.toml has changed: `make lock` writes the file anew."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    asked += [
        text for name in ("dev", "flax", "hf", "kaggle", "plot", "serve") for text in extras[name]
    ]
    for text in asked:
        wanted = Requirement(text)
        if name_of(wanted.name) in ("torch", "griffin-lm"):
            continue
        found = [
            line.split(" ")[0].partition("==")[2]
            for line in LINES
            if re.match(re.escape(name_of(wanted.name)) + r"(\[.*?\])?==", line)
        ]
        assert found and all(map(wanted.specifier.contains, found)), text
