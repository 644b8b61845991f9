"""The scan alone beside a copy, and a state's way back from host memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from griffin import ops
from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.scene import Scene
from griffin.model import State


def parts(scene: Scene) -> Iterator[Figure]:
    """Time the linear scan forward and backward, and the restoring of one sequence."""
    shape = 1, scene.sizes.scan, scene.small.lru_width
    x, a = (torch.randn(shape, device=scene.device) for _ in range(2))
    h0 = torch.randn(1, shape[2], device=scene.device)
    a = a.sigmoid()
    seconds = scene.seconds(lambda: ops.linear_scan(x, a, h0))
    # Reads x and a, writes h: three times the bytes of one.
    copy, target = torch.empty(3 * x.numel() // 2, device=scene.device).normal_(), None
    target = torch.empty_like(copy)
    limit = scene.seconds(lambda: target.copy_(copy))
    yield Figure(
        what=f"linear scan, {shape[1]:,} tokens",
        value=seconds,
        unit="s",
        limit=limit,
        wanted=limit / 0.7,
        less=True,
    )
    with torch.enable_grad():
        inputs = [t.requires_grad_() for t in (x, a, h0)]
        y, _ = ops.linear_scan(*inputs)
    grad = torch.randn_like(y)
    with torch.enable_grad():
        back = scene.seconds(lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True))
    yield Figure(
        what="linear scan backward beside forward",
        value=back / seconds,
        unit="x",
        wanted=2.5,
        less=True,
    )
    yield _restore(scene)


def _restore(scene: Scene) -> Figure:
    kept = scene.state(scene.small, 1, scene.sizes.contexts[1]).map(lambda t: t.cpu())
    if scene.device.type == "cuda":
        kept = kept.map(lambda t: t.pin_memory())
    slot = State.zeros(scene.small, 1, dtype=torch.bfloat16, device=scene.device)
    places = [slot.pos, *(t for layer in slot.layers for t in layer)]
    tensors = [kept.pos, *(t for layer in kept.layers for t in layer)]

    def put() -> None:
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor, non_blocking=True)

    seconds = scene.seconds(put)
    detail = {"bytes": sum(t.nbytes for t in tensors)}
    what = "restore of a state from host memory"
    return Figure(what=what, value=seconds, unit="s", wanted=5e-3, less=True, detail=detail)
