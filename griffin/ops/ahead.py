"""Compile recorded launches for a GPU that need not be there, and read what the compiler made.

`launching.record` says what a step launches, even of tensors without values; here each is compiled
as it would be at run time. The tools that look into the result come with Triton.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from griffin.ops.launching import FUSED, Launch

CAPABILITIES = (80, 90, 100, 120)
_POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float64: "*fp64",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")
_INSTRUCTION = re.compile(r"^\s+(?:/\*[0-9a-f]+\*/\s+)?(?:@!?U?P[\dT]+ )?([A-Z][A-Z0-9_.]+)")


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel."""

    name: str
    capability: int
    registers: int  # of a thread
    stack: int  # bytes of a thread: what did not fit in registers
    shared: int  # bytes of a program
    instructions: tuple[str, ...]  # with their modifiers, in order

    def has(self, start: str) -> bool:
        """Return whether an instruction begins so, such as HMMA."""
        return any(each.startswith(start) for each in self.instructions)

    def spills(self) -> bool:
        """Return whether registers are written to memory for want of room."""
        return bool(self.stack) or self.has("LDL") or self.has("STL")


def compile_ahead(launch: Launch, capability: int) -> Compiled:
    """Compile a launch for GPUs of a capability, such as 90, as at run time.

    Pointers are taken to begin at multiples of 16 bytes, as torch's do.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = launch.kernel.arg_names
    given = dict(zip(names, launch.args, strict=False)) | launch.constants
    signature: dict[str, str] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[Any, Any] = {}
    for number, name in enumerate(names):
        value = given[name]
        if name in launch.constants or value is None or (value == 1 and type(value) is int):
            signature[name] = "constexpr"
            constants[(number,)] = value
            continue
        whole = isinstance(value, int)
        signature[name] = _whole(value) if whole else _POINTERS.get(value, "fp32")
        if value in _POINTERS or (whole and value % 16 == 0):
            attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    options = FUSED | launch.options
    made: Any = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return _read(launch.name, capability, made.asm["cubin"], made.metadata.shared)


def _whole(value: int) -> str:
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _read(name: str, capability: int, cubin: bytes, shared: int) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        found = _RESOURCES.search(_tool("cuobjdump", "--dump-resource-usage", str(file)))
        assert found, "cuobjdump says registers and stack"
        listing = _tool("nvdisasm", "--print-code", str(file))
    lines = map(_INSTRUCTION.match, listing.splitlines())
    instructions = tuple(line[1] for line in lines if line)
    registers, stack = int(found[1]), int(found[2])
    return Compiled(name, capability, registers, stack, shared, instructions)


def _tool(name: str, *args: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([tool, *args], capture_output=True, text=True, check=True).stdout
