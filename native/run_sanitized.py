"""Run the tests of the kernels on a build that checks addresses and undefined behaviour: `make
sanitize`."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    "tests/model/test_fast_trunk.py",
    "tests/ops/test_linear.py",
    "tests/ops/test_native.py",
    "tests/ops/test_packed_linear.py",
    "tests/ops/test_twins.py",
)


def main() -> int:
    (built,) = (ROOT / "build" / "sanitize").glob("_native*.so")
    spec = spec_from_file_location("griffin._native", built)
    assert spec is not None and spec.loader is not None
    # Put where griffin.ops looks first, whatever module the package was installed with.
    sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    # A forked child and the compiler's own threads are no business of the address checks; the
    # largest products would take them a quarter of an hour.
    return pytest.main(
        [
            *(str(ROOT / name) for name in TESTS),
            "-k",
            "not fork and not compiled and not many_rows",
            *sys.argv[1:],
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
