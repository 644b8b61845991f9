"""Rows of `python -m benchmarks gpu`: single kernels of ours beside those of libraries.

gemlite's products of few rows with packed weights, flash-linear-attention's scan and torch's flash
attention with a window. Each row waits where its library is not installed, and on the CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from griffin import ops
from griffin.bench.gpu.figure import Figure, Waits
from griffin.bench.gpu.scene import Scene
from griffin.bench.gpu.sitting import SittingRow
from griffin.ops.packed_linear.int4 import round_int4

_ROWS = (1, 32)  # of a product
_APART = 256 << 20  # bytes of weights that are multiplied by turns: more than a cache holds


def library(scene: Scene, name: str, package: str) -> Any:
    """Return a module of a package that only a GPU runs; Waits where either is not here."""
    if scene.device.type == "cpu":
        raise Waits(f"{package} runs on a GPU")
    try:
        return import_module(name)
    except ImportError as error:
        raise Waits(f"{package} is not here ({error}); bring it along as a wheel") from None


def products(scene: Scene) -> Iterator[Figure]:
    """Multiply few rows by the widest matrices of a block, packed by gemlite and by us.

    Both have the same format: int8 with a scale a row, int4 with one for 32 inputs. gemlite tries
    forms of its kernels in a first call, which is not timed.
    """
    helper = library(scene, "gemlite.helper", "gemlite")
    config = scene.small
    shapes = (2 * config.mlp_width, config.width), (config.width, config.mlp_width)
    for format in ("int8", "int4"):
        for outputs, inputs in shapes:
            count = 2 if scene.dry else max(2, _APART // (outputs * inputs // 2))
            weights = [_random(scene, outputs, inputs) / inputs**0.5 for _ in range(count)]
            theirs = [_by_gemlite(helper, scene, weight, format) for weight in weights]
            ours = [ops.lay([ops.pack(weight, format)]) for weight in weights]
            for rows in _ROWS:
                x = _random(scene, rows, inputs)
                what = f"products of {rows} rows, {format}, {outputs} from {inputs}"
                yield from _beside(
                    scene,
                    what,
                    "gemlite",
                    lambda x=x, ours=ours: [ops.few_rows(x, laid) for laid in ours][-1],
                    lambda x=x, theirs=theirs: [linear(x) for linear in theirs][-1],
                    count,
                )


def _by_gemlite(helper: Any, scene: Scene, weight: Tensor, format: str) -> Any:
    """Return a weight (O, I) as a layer of gemlite's."""
    how = {"device": str(scene.device), "dtype": torch.bfloat16}
    if format == "int8":
        return helper.A16W8_INT8(**how).from_weights(weight)
    values, scales = round_int4(weight)
    scales = scales.bfloat16()
    return helper.A16W4_HQQ_INT(**how).from_weights(values, scales, torch.full_like(scales, 8))


def scan(scene: Scene) -> Iterator[Figure]:
    """Solve h[t] = a[t] h[t-1] + x[t] by flash-linear-attention's HGRN and by us, forward."""
    hgrn = library(scene, "fla.ops.hgrn", "flash-linear-attention (fla-core)")
    shape = 1, scene.sizes.scan, scene.small.lru_width
    x, a = torch.randn(shape, device=scene.device), torch.rand(shape, device=scene.device)
    h0 = torch.randn(1, shape[2], device=scene.device)
    a = a.clamp_min(1e-3)
    log = a.log()
    yield from _beside(
        scene,
        f"linear scan, {shape[1]:,} tokens",
        "flash-linear-attention",
        lambda: ops.linear_scan(x, a, h0)[0],
        lambda: hgrn.chunk_hgrn(x, log, h0, True)[0],
    )


def attention(scene: Scene) -> Iterator[Figure]:
    """Attend from a chunk of a long prompt to its window by torch's flash attention and by us."""
    varlen = library(scene, "torch.nn.attention.varlen", "torch's varlen_attn")
    takes = inspect.signature(varlen.varlen_attn).parameters
    if missing := {"window_size", "enable_gqa"} - set(takes):
        raise Waits(f"varlen_attn of torch {torch.__version__} takes no {', '.join(missing)}")
    config, steps = scene.small, scene.sizes.chunk
    size, head = config.attention_window_size, config.head_dim
    kv = config.num_kv_heads
    q, k, v = (_random(scene, 1, steps, n, head) for n in (config.num_heads, kv, kv))
    # As many tokens went before as makes the ring's order that of positions.
    before = torch.full((1,), 2 * size, device=scene.device)
    ring = _random(scene, 1, size, kv, head), _random(scene, 1, size, kv, head)
    at = before[:, None] + torch.arange(steps, device=scene.device)
    window = ops.plan_window(at, size, before, True)
    keys, values = (torch.cat(pair, 1)[0] for pair in zip(ring, (k, v), strict=True))
    ends = [
        torch.tensor([0, n], dtype=torch.int32, device=scene.device) for n in (steps, len(keys))
    ]
    lengths = *ends, steps, len(keys)
    yield from _beside(
        scene,
        f"attention of {steps:,} tokens after a full window",
        "torch's flash attention",
        lambda: ops.local_attention(q, k, v, window, ring)[0][0],
        lambda: varlen.varlen_attn(
            q[0], keys, values, *lengths, window_size=(size, 0), enable_gqa=True
        ),
    )


@torch.no_grad()
def _beside(
    scene: Scene,
    what: str,
    whose: str,
    ours: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
    count: int = 1,
) -> Iterator[Figure]:
    """Time two ways to one result, each `count` times in a call, and say how far they differ."""
    mine, other = ours().float(), theirs().float()
    differ = float((mine - other).norm() / other.norm().clamp_min(1e-30))
    seconds = [scene.seconds(each) / count for each in (ours, theirs)]
    yield Figure(what=f"{what}, by {whose}", value=seconds[1], unit="s", detail={"differ": differ})
    yield Figure(
        what=f"{what}: {whose}'s time beside ours",
        value=seconds[1] / seconds[0],
        unit="x",
        wanted=1.0,
        detail={"seconds": seconds[0], "differ": differ},
    )


def _random(scene: Scene, *shape: int) -> Tensor:
    return torch.randn(shape, device=scene.device).bfloat16()


ROWS = tuple(
    SittingRow(name=name, seconds=seconds, about=about, run=run)
    for name, seconds, about, run in (
        ("gemlite", 60, "gemlite's products of few rows beside ours, int8 and int4", products),
        ("hgrn", 15, "flash-linear-attention's scan beside ours", scan),
        ("varlen", 15, "torch's flash attention with a window beside ours", attention),
    )
)
