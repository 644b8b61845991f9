"""How the package is built: once, with the sets that were asked for, and without a compiler too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def configure(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    cmake = pytest.importorskip("cmake", reason="the build's tools are not installed").CMAKE_BIN_DIR
    ninja = Path(sys.executable).with_name("ninja")
    return subprocess.run(
        [
            *(Path(cmake) / "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja"),
            *(f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DGRIFFIN_CHECK=ON", *options),
        ],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_metadata_is_told_without_compiling(tmp_path):
    """Otherwise pip compiles while it says "Preparing metadata", and then again."""
    probe = (
        "import sys; from scikit_build_core import build;"
        "print(build.prepare_metadata_for_build_wheel(sys.argv[1]))"
    )
    pytest.importorskip("scikit_build_core")
    nothing = tmp_path / "path"  # where neither CMake nor a compiler is
    nothing.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PATH": str(nothing)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    info = tmp_path / done.stdout.split()[-1]
    assert "Name: griffin-lm" in (info / "METADATA").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_without_a_compiler_the_build_says_so_and_goes_on(tmp_path):
    done = configure(tmp_path, CXX="/bin/false")
    assert done.returncode == 0, done.stderr
    assert "there is no C++ compiler" in done.stderr and "--force-reinstall" in done.stderr


@pytest.mark.thorough
def test_a_set_that_is_not_there_is_refused(tmp_path):
    done = configure(tmp_path, "-DGRIFFIN_KERNELS=portable;avx3")
    if "there is no C++ compiler" in done.stderr:
        pytest.skip("needs a compiler")
    assert done.returncode != 0
    assert "names avx3; here there are all, native, portable" in " ".join(done.stderr.split())


@pytest.mark.thorough
@pytest.mark.parametrize("asked", ["all", "native"])
def test_portable_and_what_was_asked_for_are_compiled(tmp_path, asked):
    """All holds what this machine has, and native is the first of that."""
    from griffin.ops import native

    if not native.built():
        pytest.skip("needs a compiler")
    done = configure(tmp_path, f"-DGRIFFIN_KERNELS={asked}")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("-- Kernels: ")]
    sets = set(line.removeprefix("-- Kernels: ").replace("SET(", "").replace(")", "").split())
    here = native.module().of_machine()
    if asked == "all":
        assert sets == set(native.module().compiled()) and sets >= set(here)
    else:
        assert sets == {here[0], "portable"}
