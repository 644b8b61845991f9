"""The GPU a sitting happens on, and the interpreter that a dry run has instead."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

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
