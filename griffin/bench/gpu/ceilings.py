"""What the chip does at most: copies, reads and products, which every limit is reckoned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.limits import H200, Ceiling
from griffin.bench.gpu.scene import Scene


def ceilings(scene: Scene) -> Iterator[Figure]:
    """Measure a copy, a read, and products in bfloat16 and float8; limits follow what they give."""
    copy, read = _moving(scene)
    yield Figure(what="copy, read and written", value=copy, unit="B/s", limit=H200.bytes_per_second)
    yield Figure(what="read, summed", value=read, unit="B/s")
    side = scene.sizes.product  # of random values: a chip multiplies zeros faster
    one, other = (torch.randn(side, side, device=scene.device) for _ in range(2))
    one, other = one.bfloat16(), other.bfloat16()
    product = 2 * side**3 / scene.seconds(lambda: one @ other)
    most = H200.operations_per_second
    yield Figure(what="product, bfloat16", value=product, unit="op/s", limit=most)
    if (eight := _eight_bits(one, other)) is not None:
        yield Figure(what="product, float8", value=2 * side**3 / scene.seconds(eight), unit="op/s")
    scene.ceiling = Ceiling(copy, product)


def _moving(scene: Scene) -> tuple[float, float]:
    """Return the bytes a second of a copy and of a read; their memory is free afterwards."""
    source = torch.empty(scene.sizes.copy // 4, device=scene.device).normal_()
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / scene.seconds(lambda: target.copy_(source))
    return copy, source.nbytes / scene.seconds(source.sum)


def _eight_bits(one: Tensor, other: Tensor) -> Callable[[], Tensor] | None:
    """Return a product in float8, None where the chip has none."""
    if one.device.type != "cuda" or torch.cuda.get_device_capability(one.device) < (8, 9):
        return None
    a, b = one.to(torch.float8_e4m3fn), other.t().contiguous().to(torch.float8_e4m3fn)
    scale = torch.ones((), device=one.device)
    product = vars(torch)["_scaled_mm"]  # torch gives it no public name
    return lambda: product(a, b.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)
