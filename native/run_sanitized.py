"""Run the tests of the kernels, and calls drawn at random, on a build that checks addresses and
undefined behaviour: `make sanitize`, `make sanitize MINUTES=30`."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    "tests/model/test_fast_trunk.py",
    "tests/model/test_states.py",
    "tests/ops/test_attention_gradient.py",
    "tests/ops/test_contract.py",
    "tests/ops/test_linear.py",
    "tests/ops/test_native.py",
    "tests/ops/test_packed_linear.py",
    "tests/ops/test_recurrent_unit.py",
    "tests/ops/test_twins.py",
)
KINDS = ("ops", "states", "archives")


def main() -> int:
    (built,) = (ROOT / "build" / "sanitize").glob("_native*.so")
    spec = spec_from_file_location("griffin._native", built)
    assert spec is not None and spec.loader is not None
    # Put where griffin.ops looks first, whatever module the package was installed with.
    sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    sys.path.insert(0, str(ROOT))
    minutes = float(os.environ.get("FUZZ_MINUTES", "1"))
    # What makes a finding: an answer that is wrong, an error of another kind; the checks themselves
    # end the process.
    found = hunt(minutes, int(os.environ.get("FUZZ_SEED", str(int(time.time())))))
    if os.environ.get("FUZZ_ALONE"):
        return found
    # A forked child and the compiler's own threads are no business of the address checks; the
    # largest products would take them a quarter of an hour.
    return found or pytest.main(
        [
            *(str(ROOT / name) for name in TESTS),
            "-k",
            "not fork and not compiled and not many_rows",
            *sys.argv[1:],
        ]
    )


def hunt(minutes: float, seed: int) -> int:
    """Try cases of every kind, by turns, for so long; return 1 if one was a finding."""
    # On a busy machine two threads wait for each other at every kernel.
    importlib.import_module("torch").set_num_threads(1)
    harness = importlib.import_module("tools.fuzz.harness")
    outcomes: Counter[str] = Counter()
    until, number, found = time.monotonic() + 60 * minutes, 0, 0
    while time.monotonic() < until:
        for kind in KINDS:
            module = harness.kind_of(kind)
            case = module.make(harness.chance(kind, seed, number))
            try:
                module.attempt(case)
                outcomes[f"{kind} taken"] += 1
            except module.ALLOWED as error:
                outcomes[f"{kind}: {type(error).__name__}"] += 1
            except Exception as error:
                found = 1
                print(f"case {number} of {kind}, seed {seed}: {error!r:.1000}", flush=True)
        number += 1
    print(f"{minutes:g} minutes, seed {seed}:", dict(outcomes), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
