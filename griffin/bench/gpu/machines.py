"""The GPU a sitting happens on, and the interpreter that a dry run has instead."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

from griffin import ops
from griffin.bench.gpu.figure import Waits
from griffin.engine.graphs import Replay
from griffin.ops import interpreter, launching

_ASKED = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,memory.total"


def device_facts(dry: bool) -> dict[str, Any]:
    """Return the GPU's name, capability, memory and clocks; of a dry run that it is one."""
    if dry:
        return {"device": "none: a dry run on the CPU"}
    found = torch.cuda.get_device_properties(0)
    facts: dict[str, Any] = {
        "device": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "device_bytes": found.total_memory,
        "cuda": torch.version.cuda,
    }
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0:
            first = done.stdout.strip().splitlines()[0]
            facts |= dict(zip(_ASKED.split(","), first.split(", "), strict=True))
    return facts


def check_kernels(dry: bool) -> None:
    """Raise Waits unless the Triton kernels run: on the GPU, or of a dry run in the interpreter."""
    if not dry:
        if (why := launching.why_not()) is not None:
            raise Waits(f"the kernels do not run here: {why}")
        return
    try:
        interpreter.enable()
    except (ImportError, RuntimeError) as error:
        raise Waits(f"a dry run has the kernels in Triton's interpreter: {error}") from None


class Interpreted:
    """What stands for graphs in a dry run: each replay makes the call, its kernels interpreted."""

    def capture(self, call: Replay) -> Replay:
        def replay() -> None:
            with ops.use("triton"):
                call()

        return replay
