"""The one place where Triton kernels are launched: each can be counted, and none needs a GPU to be.

A kernel's host function makes room for results and calls `launch`. On tensors without values (meta,
fake) `launch` only says to whoever records that it was called, so the same function is the fake of
its torch operator (`device_op`): shapes cannot differ, and a whole step can be counted on a machine
without a GPU. Nothing here imports Triton unless a kernel is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

# What kernels take and give; what they sum is float32.
TYPES = (torch.float32, torch.bfloat16)
TRIED = (
    (3, 6),
    (3, 9),
)  # the first and the last version of Triton that the kernels were tried with
# Said where nothing else is, because the compiler's own choice changes with its versions.
FUSED = {"enable_fp_fusion": True}
COUNTERS = 1 << 16  # groups of programs of a launch that may wait for each other
LEAST_CAPABILITY = (8, 0)  # of a GPU: the first that multiplies bfloat16 on tensor cores


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, as it was asked for."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]  # in order; of a tensor its dtype
    constants: dict[str, Any]
    options: dict[str, int]  # num_warps, num_stages, and what differs from the compiler's own
    moved: int  # bytes that it reads and writes, by its own count

    @property
    def name(self) -> str:
        """Return the kernel's name."""
        return self.kernel.__name__


_records: ContextVar[tuple[list[Launch], ...]] = ContextVar("griffin_launches", default=())


@contextmanager
def record() -> Iterator[list[Launch]]:
    """Collect every launch inside a `with` block, in order."""
    launches: list[Launch] = []
    token = _records.set((*_records.get(), launches))
    try:
        yield launches
    finally:
        _records.reset(token)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    *args: Any,
    moved: int | None = None,
    num_warps: int = 4,
    num_stages: int = 2,
    maxnreg: int | None = None,
    fuse: bool = True,
    **constants: Any,
) -> None:
    """Launch a Triton kernel on the device of its tensors, or only record it if they have no
    values.

    args:      in the kernel's order: tensors, whole numbers, None.
    constants: what the kernel is compiled for.
    maxnreg:   the most registers of a thread, where the compiler would take more than it needs.
    fuse:      whether a product may be added to something before it is rounded, which is faster,
               and not what the processor does.
    moved:     bytes it reads and writes; each tensor once if omitted.
    Raises ValueError for tensors on the CPU, where kernels run only in the interpreter.
    """
    tensors = [t for t in args if isinstance(t, Tensor)]
    options: dict[str, int] = {"num_warps": num_warps, "num_stages": num_stages}
    if maxnreg is not None:
        options["maxnreg"] = maxnreg
    if not fuse:
        options["enable_fp_fusion"] = False
    if records := _records.get():
        kinds = tuple(t.dtype if isinstance(t, Tensor) else t for t in args)
        count = sum(t.numel() * t.itemsize for t in tensors) if moved is None else moved
        one = Launch(kernel, grid, kinds, constants, options, count)
        for launches in records:
            launches.append(one)
    if any(without_values(t) for t in tensors) or 0 in grid:
        return
    if tensors[0].is_cpu:
        from triton.runtime import JITFunction

        if isinstance(kernel, JITFunction):
            raise ValueError(
                f"the Triton kernel {kernel.__name__} runs on a CUDA device; on the CPU only in"
                " Triton's interpreter, so start Python with TRITON_INTERPRET=1"
            )
        kernel[grid](*args, **constants)
        return
    with torch.cuda.device(tensors[0].device):
        kernel[grid](*args, **constants, **(FUSED | options))


def without_values(t: Tensor) -> bool:
    """Return whether a tensor has a shape and a device, but no values."""
    return t.is_meta or isinstance(t, FakeTensor)


def counters(like: Tensor) -> Tensor:
    """Return COUNTERS int32 zeros on a tensor's device, for programs that wait for each other.

    Whoever counts there leaves zeros. They stay where they are, because a captured graph knows
    their address; so launches that count have to follow each other on one stream.
    """
    if without_values(like):
        return like.new_empty(COUNTERS, dtype=torch.int32)
    return _counters(like.device)


@cache
def _counters(device: torch.device) -> Tensor:
    return torch.zeros(COUNTERS, dtype=torch.int32, device=device)


def device_op(name: str, run: Callable[..., Any], mutates: Sequence[str] = ()) -> Any:
    """Make a torch operator griffin::NAME of a host function, which is its own fake.

    run:     annotated; makes new tensors for its results and fills them by `launch`.
    mutates: names of the arguments it changes in place.
    """
    op = torch.library.custom_op(f"griffin::{name}", run, mutates_args=tuple(mutates))
    op.register_fake(run)
    return op


def parts(count: int, size: int) -> int:
    """Return how many parts of `size` hold `count`."""
    return -(-count // size)


def power_of_two(least: int, most: int) -> int:
    """Return the smallest power of two from `least` on, but `most` at most."""
    return min(1 << max(least - 1, 0).bit_length(), most)


@cache
def ready(number: int | None = None) -> bool:
    """Return whether the Triton kernels are chosen on a CUDA device, by its number; None: on the
    current one."""
    return why_not(number) is None


def why_not(number: int | None = None) -> str | None:
    """Return why Triton kernels are not chosen on a CUDA device, by its number; None: they are."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        return "triton is not installed"
    numbers = tuple(int(part) for part in found.split(".")[:2])
    if not TRIED[0] <= numbers <= TRIED[1]:
        tried = " to ".join(".".join(map(str, each)) for each in TRIED)
        return f"triton {found} has not been tried ({tried} have)"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if number is not None and number >= torch.cuda.device_count():
        return f"there is no CUDA device {number}"
    capability = torch.cuda.get_device_capability(number)
    if capability < LEAST_CAPABILITY:
        return "the GPU is of capability {}.{}, and kernels need {}.{}".format(
            *capability, *LEAST_CAPABILITY
        )
    return None
