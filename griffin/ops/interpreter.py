"""Triton kernels run in Python, on the CPU: for tests, and for trying a benchmark without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any


def enable() -> None:
    """Mend Triton's interpreter, where it is on: scans a slice at a time, products of bfloat16.

    By itself it scans value by value, a second for a tile, multiplies the bits of bfloat16 numbers
    as if they were whole numbers, cuts off what a GPU rounds to the nearest of them, and prepares
    the language anew at each call of a function, which is a third of its time. Triton asks for
    TRITON_INTERPRET when it is imported, which torch's compiler does before anything here runs, so
    the variable has to be set from outside. Raises RuntimeError where it was not.
    """
    from triton.language import standard
    from triton.runtime import JITFunction, interpreter

    if isinstance(standard.sum, JITFunction):
        raise RuntimeError("to run Triton kernels on a CPU start Python with TRITON_INTERPRET=1")
    setattr(interpreter.ScanOps, "generic_scan", _scan)  # noqa: B010  # it has another type
    setattr(interpreter.InterpreterBuilder, "create_dot", _dot)  # noqa: B010
    setattr(interpreter.InterpretedFunction, "__call__", _call)  # noqa: B010
    whole = getattr(interpreter, "_convert_float")  # noqa: B009  # it is not public
    if not isinstance(whole, partial):
        setattr(interpreter, "_convert_float", partial(_convert, whole))  # noqa: B010
        types = getattr(interpreter, "_get_np_dtype")  # noqa: B009
        setattr(interpreter, "_get_np_dtype", partial(_numpy_type, types))  # noqa: B010


_prepared: set[int] = set()  # modules that have called a function


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function of a kernel. A launch prepares the language; of a module's own names for it,
    which stay as they were made, this does so once."""
    from triton.runtime import interpreter

    names = self.fn.__globals__
    if id(names) not in _prepared:
        _prepared.add(id(names))
        getattr(interpreter, "_patch_lang")(self.fn)  # noqa: B009  # it is not public
    return self.rewrite()(*args, **kwargs)


def _convert(whole: Any, values: Any, source: Any, target: Any, rounding: Any) -> Any:
    """Return the bits of numbers in another type: bfloat16 by its bits, rounded to the nearest."""
    import numpy as np
    import triton.language as tl

    if source == tl.bfloat16 and target == tl.float32:
        return values.astype(np.uint32) << 16
    if source != tl.float32 or target != tl.bfloat16:
        return whole(values, source, target, rounding)
    bits = np.ascontiguousarray(values).view(np.uint32).reshape(values.shape)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where((bits << 1) > 0xFF000000, (bits >> 16) | 64, rounded).astype(np.uint16)


_TYPES: dict[str, Any] = {}  # numpy's, by what the language calls them


def _numpy_type(whole: Any, kind: Any) -> Any:
    """Return what numpy holds numbers of a type in; the interpreter makes its table each time."""
    name = kind.scalar.name
    if name not in _TYPES:
        _TYPES[name] = whole(kind.scalar)
    return _TYPES[name]


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


def _dot(self: Any, a: Any, b: Any, total: Any, precision: Any, imprecise: Any) -> Any:
    """Add the product of two tiles to a third; bfloat16 ones are widened, which rounds nothing."""
    import numpy as np

    product = np.matmul(_wide(a), _wide(b), dtype=total.data.dtype)
    return type(total)(product + total.data, total.dtype.scalar)


def _wide(tile: Any) -> Any:
    import numpy as np
    import triton.language as tl

    if tile.dtype.scalar != tl.bfloat16:
        return tile.data
    return (tile.data.astype(np.uint32) << 16).view(np.float32)
