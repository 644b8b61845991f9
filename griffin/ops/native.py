"""The compiled kernels: whether they are there, which instruction set runs, how fast memory is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from griffin.ops.installation import NEEDS, install_again

MODULE = "griffin._native"
INTERFACE = 5  # what native/module.cpp says of itself
# As in native/kernels.h and native/sequence.h: numbers of the types, and what the kernels have room
# for.
LARGEST_GATE = 4096
MOST_TAPS = 16
KEPT_STEPS = 128
MOST_QUERIES = 64
LARGEST_HEAD = 1024
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}


@cache
def built() -> bool:
    """Return whether the package has its compiled module (it needs a C++17 compiler)."""
    return find_spec(MODULE) is not None


@cache
def module() -> Any:
    """Return the compiled module.

    Raises RuntimeError, with the remedy, where there is none, and where it was built from sources
    whose functions take something else.
    """
    if not built():
        raise RuntimeError(
            "the native kernels are not built; leave the choice of implementation to griffin.ops,"
            f" or install again {NEEDS}: {install_again()}"
        )
    found = import_module(MODULE)
    if getattr(found, "interface", None) != INTERFACE:
        raise RuntimeError(
            f"the native kernels in {found.__file__} were built from other sources; install again"
            f" {NEEDS}: {install_again()}"
        )
    return found


def through_torch(*inputs: Tensor) -> bool:
    """Return whether a call has to be a torch operator: for a gradient or a compiler.

    Otherwise the kernel is called at once, because an operator costs more than a small kernel
    takes.
    """
    return torch.compiler.is_compiling() or (
        torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    )


def instruction_sets() -> list[str]:
    """Return the instruction sets whose kernels this machine can run, the fastest first."""
    return module().instruction_sets() if built() else []


def multiplies_bfloat16() -> bool:
    """Return whether this machine has instructions for products of bfloat16 numbers.

    Elsewhere torch takes ten times as long for them as for those of float32.
    """
    return "avx512_bf16" in instruction_sets()


def not_compiled() -> list[str]:
    """Return the instruction sets that this machine has, and this installation no kernels for."""
    compiled = module().compiled()
    return [name for name in module().of_machine() if name not in compiled]


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Run the kernels of one instruction set, in all threads, inside a `with` block; for tests.

    Raises ValueError for one that this machine does not have.
    """
    before = module().instruction_set()
    if name not in instruction_sets():
        raise ValueError(f"no kernels for {name!r} here; there are {', '.join(instruction_sets())}")
    module().use_instruction_set(name)
    try:
        yield
    finally:
        module().use_instruction_set(before)


def read_rate(buffer: Tensor, threads: int) -> float:
    """Return the bytes per second at which `threads` threads read a contiguous tensor once.

    Each thread reads its own share from front to back, as the products with packed weights do. For
    the rate of memory the buffer has to be several times larger than the last cache, and written
    before.
    """
    if not buffer.is_contiguous() or buffer.device.type != "cpu" or buffer.nbytes < 8:
        raise ValueError("read_rate needs a contiguous CPU tensor of at least 8 bytes")
    bytes_read = buffer.nbytes // 8 * 8
    return bytes_read / module().read_seconds(buffer.data_ptr(), bytes_read, threads)
