"""The one place that chooses an implementation of an op, and says what it chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from griffin.ops import launching, native

# op -> the implementations it has, the fastest first; each is
# `griffin.ops.<op>.<implementation>.<op>`.
IMPLEMENTATIONS: dict[str, tuple[str, ...]] = {
    "linear_scan": ("native", "triton", "eager", "reference"),
    "causal_conv": ("native", "triton", "eager", "reference"),
    "rg_lru": ("native", "triton", "eager", "reference"),
    "recurrent_step": ("triton", "eager", "reference"),
    "recurrent_unit": ("native", "triton", "eager", "reference"),
    "local_attention": ("native", "triton", "eager", "reference"),
    "packed_linear": ("native", "eager", "reference"),
    "screened_linear": ("native", "eager", "reference"),
    "few_rows": ("triton", "reference"),
    "look_up_rows": ("triton", "reference"),
    "ring_attention": ("triton", "reference"),
    "keep_before": ("triton", "reference"),
    "draw_tokens": ("triton", "reference"),
}
# What the native kernels are chosen for; they also run in float64, where being slower is no matter.
_NATIVE_TYPES = (torch.float32, torch.bfloat16)
# Whose modules need a package that not every machine has; loaded where they may be chosen.
_LATE = ("triton",)

_forced: ContextVar[str | None] = ContextVar("griffin_ops_forced", default=None)
_loaded: dict[tuple[str, str], Callable[..., Any]] = {}


@contextmanager
def use(implementation: str) -> Iterator[None]:
    """Run every op with one implementation, such as "reference", inside a `with` block.

    Raises ValueError for a name no op has; an op that lacks it raises when it is called.
    """
    known = {name for names in IMPLEMENTATIONS.values() for name in names}
    if implementation not in known:
        raise ValueError(
            f"no implementation {implementation!r}; there are {', '.join(sorted(known))}"
        )
    token = _forced.set(implementation)
    try:
        yield
    finally:
        _forced.reset(token)


def implementation(op: str, x: Tensor, *others: Tensor | None) -> Callable[..., Any]:
    """Return the function that computes `op` now, for inputs of the kind of `x`.

    others: the op's other operands. Raises ValueError if they do not all lie on one device, and for
            an x that is no floating-point tensor.
    torch.compile keeps the choice made when it traced.
    """
    if not x.is_floating_point():
        raise ValueError(f"{op} takes floating-point tensors, not {x.dtype}")
    on_one_device(x, *others)
    device = x.device
    choice = _choice(op, device.type, x.dtype, device.index)
    return _loaded[choice]


def natively(*inputs: Tensor, trains: bool = False) -> bool:
    """Return whether a small elementwise op runs in C++ now; otherwise its torch formula does.

    Where nothing is being compiled or needs a gradient (unless the kernel `trains`: it has one for
    that, too), and the inputs are of one type that the kernels have. Raises ValueError if they do
    not all lie on one device.
    """
    on_one_device(*inputs)
    if torch.compiler.is_compiling():
        return False
    dtype, grad = inputs[0].dtype, torch.is_grad_enabled() and not trains
    for t in inputs:  # loops, because a step of a small model asks a hundred times
        if t.dtype is not dtype or (grad and t.requires_grad):
            return False
    forced = _forced.get()
    types = native.TYPES if forced == "native" else _NATIVE_TYPES
    return forced in (None, "native") and native.built() and inputs[0].is_cpu and dtype in types


def unforced() -> bool:
    """Return whether no `use` is in force: one path may then stand in for several ops."""
    return _forced.get() is None


def on_one_device(first: Tensor, *others: Tensor | None) -> None:
    """Raise ValueError unless all operands lie on the first one's device."""
    cpu, device = first.is_cpu, None
    for t in others:
        if t is None or (cpu and t.is_cpu):
            continue
        device = first.device if device is None else device
        if t.device != device:
            raise ValueError(
                f"operands lie on {device} and on {t.device}; an op takes all on one device"
            )


def _choice(op: str, device: str, dtype: torch.dtype, number: int | None = None) -> tuple[str, str]:
    """Return (op, implementation), a key of the loaded functions. number: of a device among those
    of its kind, which may differ; None: the current one."""
    # All at once, because a compiler looks at the table only once.
    if not _loaded:
        _load(lambda name: name not in _LATE)
    if (device == "cuda" or _forced.get() in _LATE) and not loaded(*_LATE):
        _load(lambda name: name in _LATE and (launching.ready(number) or _forced.get() == name))
    name = _forced.get() or _choose(op, device, dtype, number)
    if name not in IMPLEMENTATIONS[op]:
        raise ValueError(
            f"{op} has no implementation {name!r}; it has {', '.join(IMPLEMENTATIONS[op])}"
        )
    return op, name


# What torch.compiler.assume_constant_result sets; that would import the compiler, which takes as
# long as the rest of torch, in every program.
vars(_choice)["_dynamo_marked_constant"] = True


def _load(wanted: Callable[[str], bool]) -> None:
    for op, names in IMPLEMENTATIONS.items():
        for name in filter(wanted, names):
            _loaded[op, name] = getattr(import_module(f"griffin.ops.{op}.{name}"), op)


def loaded(*names: str) -> bool:
    """Return whether the modules of an implementation have been imported."""
    return any(name in names for _, name in _loaded)


def _choose(op: str, device: str, dtype: torch.dtype, number: int | None = None) -> str:
    for name in IMPLEMENTATIONS[op]:
        if name == "native" and not (native.built() and device == "cpu" and dtype in _NATIVE_TYPES):
            continue
        if name == "triton" and not (
            device == "cuda" and dtype in launching.TYPES and launching.ready(number)
        ):
            continue
        return name
    raise AssertionError(f"{op} has no implementation that runs everywhere")


def describe() -> dict[str, str]:
    """Return op -> what runs it now on the CPU, and a line about the kernels there and on a GPU.

    For `griffin info`. Ops that only a GPU's decode step asks for are left out.
    """
    here = [op for op, names in IMPLEMENTATIONS.items() if "eager" in names]
    ops = {op: _forced.get() or _choose(op, "cpu", torch.float32) for op in here}
    missing = launching.why_not()
    gpu = f"torch's own operations: {missing}" if missing else "Triton's"
    return ops | {"native kernels": _kernels(), "kernels on a GPU": gpu}


def _kernels() -> str:
    if not native.built():
        return "not compiled, so torch alone runs, several times slower"
    module, missing = native.module(), native.not_compiled()
    also = [name for name in native.instruction_sets() if name != module.instruction_set()]
    return (
        f"{module.instruction_set()} (also here: {', '.join(also) or 'none'}"
        f"{'; not compiled: ' + ', '.join(missing) if missing else ''})"
    )
