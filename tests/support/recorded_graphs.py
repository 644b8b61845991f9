"""A stand-in for CUDA graphs on the CPU: the operations of a call, recorded and done again.

As a CUDA graph it knows nothing but operations and the memory they work on: what Python decided
when it recorded, and every number it took from a tensor, stays as it was. Reading a number from a
tensor while recording is an error, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from griffin.ops import native

_WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal"}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in _WAITS, f"{name} waits for the device, which a capture forbids"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tree_flatten(out)[0]))
        return out


class RecordedGraphs:
    """Records calls.

    captured: of each graph, the operations that are more than another look at a tensor.
    replays:  how often any of them was replayed.
    """

    def __init__(self) -> None:
        self.captured: list[int] = []
        self.replays = 0

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        # The native kernels work on addresses, where nobody can record them.
        with mock.patch.object(native, "built", lambda: False), _Recorder() as recorder:
            call()
        calls = recorder.calls
        self.captured.append(sum(not func.is_view for func, *_ in calls))

        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, before in calls:
                after = tree_flatten(func(*args, **kwargs))[0]
                for old, new in zip(before, after, strict=True):
                    # Results go where they were when it was recorded; views lie there already.
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay
