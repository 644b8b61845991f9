"""The kernels at toy shapes under compute-sanitizer, which sees reads and writes out of bounds.

`python -m griffin.bench.gpu.memcheck` is what it watches: each kernel once, on the GPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import torch

from griffin.bench.gpu.cases import CASES
from griffin.bench.gpu.figure import Figure, Waits
from griffin.bench.gpu.kernels import errors
from griffin.bench.gpu.scene import Scene

_TOOL = "compute-sanitizer"
_FOUND = re.compile(r"ERROR SUMMARY: (\d+) error")


def memcheck(scene: Scene) -> Iterator[Figure]:
    """Count what the sanitizer finds. It slows kernels down a hundredfold, so shapes are toys."""
    if scene.device.type == "cpu":
        raise Waits("there is no GPU that it could watch")
    if (tool := shutil.which(_TOOL)) is None:
        raise Waits(f"{_TOOL} is not here; it comes with CUDA")
    command = [tool, "--tool", "memcheck", sys.executable, "-m", __name__]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    text = ran.stdout + ran.stderr
    if (found := _FOUND.search(text)) is None:
        raise RuntimeError(f"{_TOOL} ended with {ran.returncode}: {text[-2_000:]}")
    detail = {"exit": ran.returncode, "said": text[-2_000:]}
    yield Figure(
        what="errors that memcheck finds",
        value=int(found[1]),
        unit="",
        wanted=0,
        less=True,
        detail=detail,
    )


def main() -> None:
    scene = Scene(True, "cuda")
    for case in CASES.values():
        for dtype in (torch.bfloat16, torch.float32):
            for seed, shape in enumerate(case.toy):
                errors(case, shape, dtype, scene.device, seed)


if __name__ == "__main__":
    main()
