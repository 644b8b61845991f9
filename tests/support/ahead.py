"""The whole matrix of kernels and GPUs, compiled without one, with the Triton that is installed.

`python -m tests.support.ahead FILE [SECONDS]` adds to the JSON in FILE what is not in it yet, and
stops after so many seconds; run it again to go on, and in the environment of another Triton for
that one's half: for capability 9.0 every form that a sitting on a GPU compiles or a test asks for,
both released shapes in every format, and for the others one of each kernel and format.
tests/ops/test_ahead.py compiles the tests' forms for all, with one Triton.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from griffin.bench.gpu import compiling
from griffin.bench.machine import commit
from griffin.ops.ahead import CAPABILITIES, Compiled, compile_ahead
from griffin.ops.launching import Launch
from tests.ops import launches, step_launches

# What is launched by a prompt, and what by a decode step.
PROMPT = ("linear_scan", "causal_conv", "rg_lru", "recurrent_step", "local_attention")
STEP = ("few_rows", "in_float32", "look_up_rows", "ring_attention", "draw_tokens", "keep_before")
COMMAND = "python -m tests.support.ahead FILE"


def of_tests() -> list[Launch]:
    """Return every launch that the tests compile."""
    return [
        one
        for name in (*PROMPT, *STEP)
        for one in getattr(launches if name in PROMPT else step_launches, name)()
    ]


def asked() -> list[tuple[Launch, int]]:
    """Return each launch with the capabilities that it is compiled for, those that are compiled
    alike once."""
    tests = of_tests()
    every = {form_of(one): one for one in (*compiling.all_launches(), *tests)}
    kinds = {(one.name, one.args[0], one.constants.get("bits")): one for one in tests}
    formats = {(name, bits): kinds[name, kind, bits] for name, kind, bits in reversed(kinds)}
    others = [(one, each) for each in CAPABILITIES if each != 90 for one in formats.values()]
    return [*((one, 90) for one in every.values()), *others]


def form_of(one: Launch) -> str:
    """Return what a launch is compiled for, in words: its kernel, types and constants."""
    types = [str(each).removeprefix("torch.") for each in one.args]
    constants = [f"{name}={value}" for name, value in {**one.constants, **one.options}.items()]
    return f"{one.name}({', '.join(types)}; {', '.join(constants)})"


def row_of(triton: str, form: str, made: Compiled) -> dict[str, Any]:
    """Return what came of a launch."""
    reads = [each for each in made.instructions if each.startswith(("LDG", "LDGSTS", "UTMA"))]
    wide = any(".128" in each or each.startswith("UTMA") for each in reads)
    return {
        "triton": triton,
        "capability": made.capability,
        "kernel": made.name,
        "form": form,
        "registers": made.registers,
        "stack": made.stack,
        "spills": made.spills(),
        "shared": made.shared,
        "loads_of_16_bytes": wide,
        "tensor_cores": made.has("HMMA") or made.has("HGMMA") or made.has("UTCHMMA"),
    }


def main(file: str, seconds: str = "inf") -> None:
    path, until, triton = Path(file), time.perf_counter() + float(seconds), version("triton")
    table: dict[str, Any] = {"rows": []}
    if path.exists():
        table = json.loads(path.read_text())
    about = {"command": COMMAND, "commit": commit()}
    wanted = {(each, form_of(one)): (one, each) for one, each in asked()}
    table["rows"] = [row for row in table["rows"] if (row["capability"], row["form"]) in wanted]
    known = {(row["capability"], row["form"]) for row in table["rows"] if row["triton"] == triton}
    left = [found for key, found in wanted.items() if key not in known]
    for number, (one, capability) in enumerate(left):
        if time.perf_counter() > until:
            print(f"{len(left) - number} are left", file=sys.stderr)
            break
        form = form_of(one)
        table["rows"].append(row_of(triton, form, compile_ahead(one, capability)))
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n  ".join(json.dumps(row) for row in table["rows"])
    head = json.dumps(about, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "rows": [\n  {rows}\n ]\n}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
