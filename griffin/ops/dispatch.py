"""The one place that chooses an implementation of an op, and says what it chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

# op -> the implementations it has, the fastest first; each is `griffin.ops.<op>.<implementation>.<op>`.
IMPLEMENTATIONS: dict[str, tuple[str, ...]] = {
    "linear_scan": ("eager", "reference"),
    "causal_conv": ("eager", "reference"),
    "rg_lru": ("eager", "reference"),
    "local_attention": ("eager", "reference"),
}

_forced: ContextVar[str | None] = ContextVar("griffin_ops_forced", default=None)
_loaded: dict[tuple[str, str], Callable[..., Any]] = {}


@contextmanager
def use(implementation: str) -> Iterator[None]:
    """Run every op with one implementation, such as "reference", inside a `with` block.

    Raises ValueError for a name no op has; an op that lacks it raises when it is called.
    """
    known = {name for names in IMPLEMENTATIONS.values() for name in names}
    if implementation not in known:
        raise ValueError(f"no implementation {implementation!r}; there are {', '.join(sorted(known))}")
    token = _forced.set(implementation)
    try:
        yield
    finally:
        _forced.reset(token)


def implementation(op: str) -> Callable[..., Any]:
    """Return the function that computes `op` now."""
    name = _forced.get() or IMPLEMENTATIONS[op][0]
    if name not in IMPLEMENTATIONS[op]:
        raise ValueError(f"{op} has no implementation {name!r}; it has {', '.join(IMPLEMENTATIONS[op])}")
    key = (op, name)
    if key not in _loaded:
        _loaded[key] = getattr(import_module(f"griffin.ops.{op}.{name}"), op)
    return _loaded[key]


def describe() -> dict[str, str]:
    """Return op -> the implementation that runs it now, for `griffin info`."""
    return {op: _forced.get() or names[0] for op, names in IMPLEMENTATIONS.items()}
