"""The bytes of tensors that live at a time while code runs."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Living(TorchDispatchMode):
    """Count the bytes of what operations under it made, and remember the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self._now, self._known = 0, 0, set[int]()

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in args if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in given or key in self._known:
                continue
            self._known.add(key)
            weakref.finalize(storage, self._gone, key, size)
            self._now += size
            self.most = max(self.most, self._now)
        return out
