"""Triton kernels run in Python, on the CPU: for tests, and for trying a benchmark without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def enable() -> None:
    """Let Triton's interpreter run scans a slice at a time, where it is on.

    By itself it takes them value by value, a second for a tile. Triton asks for TRITON_INTERPRET
    when it is imported, which torch's compiler does before anything here runs, so the variable has
    to be set from outside. Raises RuntimeError where it was not.
    """
    from triton.language import standard
    from triton.runtime import JITFunction, interpreter

    if isinstance(standard.sum, JITFunction):
        raise RuntimeError("to run Triton kernels on a CPU start Python with TRITON_INTERPRET=1")
    setattr(interpreter.ScanOps, "generic_scan", _scan)  # noqa: B010  # it has another type


def _scan(self: Any, inputs: Sequence[Any]) -> list[Any]:
    """Scan tensors along an axis from its beginning, combining whole slices of it in order."""
    import numpy as np

    values = [np.moveaxis(each.handle.data, self.axis, 0) for each in inputs]
    types = [each.dtype for each in inputs]
    results = [np.empty_like(each) for each in values]
    so_far: Any = ()
    for step, here in enumerate(zip(*values, strict=True)):
        slices = [self.to_tensor(each, dtype) for each, dtype in zip(here, types, strict=True)]
        found = self.combine_fn.fn(*so_far, *slices) if step else tuple(slices)
        so_far = found if isinstance(found, tuple) else (found,)
        for result, each in zip(results, so_far, strict=True):
            result[step] = each.handle.data
    return [
        self.to_tensor(np.ascontiguousarray(np.moveaxis(each, 0, self.axis)), dtype)
        for each, dtype in zip(results, types, strict=True)
    ]
