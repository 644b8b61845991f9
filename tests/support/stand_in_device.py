"""A device without values, for tests: what runs on it may neither wait for it nor mix devices.

Shapes, types and devices are followed through every operation, as on a GPU, on a build of torch
for the CPU. Values are checked elsewhere; this checks that the host never asks for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from griffin.model import Griffin, GriffinConfig

DEVICE = torch.device("privateuseone", 0)  # the name that torch keeps for devices of others

_WAITS = {
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"),
    *("_unique2", "unique_dim", "unique_consecutive", "bincount", "_assert_scalar"),
}
# What makes no work on a device: another look at memory that is there, or memory without values.
_FREE = {
    *("view", "_unsafe_view", "_reshape_alias", "reshape", "unflatten", "alias", "detach"),
    *("unsqueeze", "squeeze", "expand", "permute", "transpose", "t", "unbind", "as_strided"),
    *("select", "slice", "narrow", "split", "split_with_sizes", "unfold", "lift_fresh", "diagonal"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
}


class Waited(AssertionError):
    """The host asked the device for a value, and would have waited for it."""


class Crossed(AssertionError):
    """Values went from one device to another where nobody had allowed it."""


class Watch(TorchDispatchMode):
    """What was asked of the device.

    launches: operations by name, without those that only look at memory in another way.
    crossed:  copies between devices, by name; an error unless they are inside `crossing`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.crossed: Counter[str] = Counter()
        self._may_cross = False

    @contextmanager
    def crossing(self) -> Iterator[None]:
        """Let values go from one device to another while the block runs."""
        before, self._may_cross = self._may_cross, True
        try:
            yield
        finally:
            self._may_cross = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._opname
        here = _devices((args, kwargs))
        if DEVICE in here and (name in _WAITS or _asks_how_many(name, args)):
            raise Waited(f"{name} waits for the device")
        found = func(*args, **(kwargs or {}))
        both = here | _devices(found)
        if DEVICE in both:
            if len(both) > 1:
                if not self._may_cross:
                    raise Crossed(f"{name} goes from {' and '.join(sorted(map(str, here)))}")
                self.crossed[name] += 1
            elif func.namespace != "prim" and name not in _FREE:
                self.launches[name] += 1
        return found


@contextmanager
def stand_in() -> Iterator[Watch]:
    """Have the device while the block runs, without gradients; return what watches over it.

    Tensors made inside have no values and are of no use outside, those of the CPU too.
    """
    _register()
    _Module.present = True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), Watch() as watch:
            yield watch
    finally:
        _Module.present = False


def model_on(config: GriffinConfig, dtype: torch.dtype = torch.bfloat16) -> Griffin:
    """Return a model on the device, inside `stand_in`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with DEVICE:
            return Griffin(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def _asks_how_many(name: str, args: tuple[Any, ...]) -> bool:
    """Return whether an operation's result is as long as there are true values in a tensor."""
    return name == "index" and any(t is not None and t.dtype is torch.bool for t in args[1])


def _devices(values: Any) -> set[torch.device]:
    return {t.device for t in tree_leaves(values) if isinstance(t, Tensor)}


@cache
def _register() -> None:
    """Make torch know the device: once a process, by the one call here that is experimental."""
    backend_registration._setup_privateuseone_for_python_backend(backend_module=_Module())


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a device's module: `torch.privateuseone`.

    present: whether a `stand_in` runs. A process never forgets a device, and others' tests in it
    would have their checkpoints written from one that cannot be written from.
    """

    present = False

    def is_available(self) -> bool:
        return self.present

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]
