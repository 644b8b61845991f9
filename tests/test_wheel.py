"""The wheel, in an environment of its own (`make test-wheel`): it holds what it should, no more,
and runs from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from griffin.ops import native

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ROOT)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a way to run the installed command in a folder far from the checkout."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    pip(python, "install", "--constraint", ROOT / "constraints.txt", wheel)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [home / "venv" / "bin" / "griffin", *arguments],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def pip(python: str | Path, *words: object) -> None:
    command = [str(python), "-m", "pip", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]


def test_it_holds_the_package_and_nothing_beside_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    rooms = {name.split("/")[0] for name in names}
    assert rooms == {"griffin", next(room for room in rooms if room.endswith(".dist-info"))}
    assert "griffin/data/recipes/nano.toml" in names and "griffin/server/page/index.html" in names
    modules = [name for name in names if Path(name).suffix in (".so", ".pyd")]
    assert len(modules) == (1 if native.built() else 0)
    newer = sys.version_info >= (3, 12) and native.built()
    assert ("abi3" in wheel.name) == newer  # one wheel for 3.12 and later


def test_it_speaks_as_the_checkout_does(installed):
    import griffin

    words = ("generate", "--max-tokens", "24", "--seed", "2", "--json", "def factorial(n):")
    answer = json.loads(installed(*words))
    ours = griffin.load("nano").generate("def factorial(n):", max_tokens=24, seed=2)
    assert answer["ids"] == list(ours.ids) and len(ours.ids) == 24


def test_it_says_which_kernels_it_has(installed):
    facts = json.loads(installed("info", "--json"))
    assert ("not compiled" in facts["kernels"]["native kernels"]) == (not native.built())
    if native.built():
        assert facts["kernels"]["packed_linear"] == "native"


def test_it_brings_its_recipes(installed):
    assert installed("train", "--list").startswith("nano ")
