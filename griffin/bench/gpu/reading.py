"""Reading prompts: tokens a second, whether length costs anything, and what a part of it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from griffin import ops
from griffin.bench import work
from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.limits import prefill_limit
from griffin.bench.gpu.scene import Scene
from griffin.model import Griffin, GriffinConfig, State


def prefill(scene: Scene) -> Iterator[Figure]:
    """Read two prompts in bfloat16, then one in int8 and int4, and time the scan's share."""
    speeds = {}
    for length in scene.sizes.prompts:
        figure, speeds[length] = _prefill(scene, scene.small, "bf16", length, wanted=112_000)
        yield figure
    length = scene.sizes.prompts[0]
    token = 1 / speeds[length]
    yield from _shares(scene, token)
    for format in ("int8", "int4"):
        yield _prefill(scene, scene.small, format, length, wanted=0.9 * speeds[length])[0]


def long_prefill(scene: Scene) -> Iterator[Figure]:
    """Read the longest prompt, and compare it with a shorter one: length should cost nothing."""
    shorter, speed = _prefill(scene, scene.small, "bf16", scene.sizes.prompts[1])
    figure, longest = _prefill(scene, scene.small, "bf16", scene.sizes.longest)
    yield shorter
    yield figure
    yield Figure(
        what=f"{scene.sizes.longest:,} tokens beside {scene.sizes.prompts[1]:,}",
        value=longest / speed,
        unit="x",
        limit=1.0,
        wanted=0.97,
    )


def large_prefill(scene: Scene) -> Iterator[Figure]:
    """Read a prompt with the large model."""
    yield _prefill(scene, scene.large, "bf16", scene.sizes.prompts[1], wanted=31_000)[0]


def read(scene: Scene, model: Griffin, length: int) -> float:
    """Read a prompt in chunks, the last logits computed; return the seconds it took."""
    tokens = scene.tokens(model.config, 1, length)
    state = State.zeros(model.config, 1, dtype=model.dtype, device=scene.device)
    hidden = None
    scene.wait()
    begun = time.perf_counter()
    with torch.no_grad():
        for chunk in tokens.split(scene.sizes.chunk, 1):
            hidden, state = model.trunk(chunk, state, donate=True)
        assert hidden is not None
        model.unembed(hidden[:, -1])
    scene.wait()
    return time.perf_counter() - begun


def _prefill(
    scene: Scene, config: GriffinConfig, format: str, length: int, wanted: float | None = None
) -> tuple[Figure, float]:
    model = scene.model(config, format)
    read(scene, model, min(length, 2 * scene.sizes.chunk))  # what is compiled, is compiled here
    seconds = read(scene, model, length)
    speed = length / seconds
    figure = Figure(
        what=f"prefill, {scene.name(config)} {format}, {length:,} tokens",
        value=speed,
        unit="tokens/s",
        limit=prefill_limit(config, scene.ceiling, length).tokens_per_second,
        wanted=wanted,
        detail={"seconds": seconds, "chunk": scene.sizes.chunk},
    )
    return figure, speed


def _shares(scene: Scene, token: float) -> Iterator[Figure]:
    """Time convolution with gates and scan, attention, and products of a chunk, layer by layer."""
    model, config, length = scene.model(scene.small, "bf16"), scene.small, scene.sizes.chunk
    chunk = token * length
    blocks: list[Any] = [block.temporal_block for block in model.model.layers]
    recurrent = [b for b, kind in zip(blocks, config.block_types, strict=True) if kind[0] == "r"]
    x = torch.randn(1, length, config.lru_width, device=scene.device).bfloat16()
    where = torch.arange(length, device=scene.device)[None] + 2 * config.attention_window_size
    state = scene.state(config, 1, 2 * config.attention_window_size)
    conv, lru = next(layer for layer in state.layers if "lru" in layer._fields)

    def unit() -> None:
        u, _ = recurrent[0].conv_1d(x, where, conv)
        recurrent[0].rg_lru(u, where, lru)

    scans = scene.seconds(unit) * len(recurrent)
    yield Figure(
        what="share of convolution, gates and RG-LRU in prefill",
        value=scans / chunk,
        unit="share",
        wanted=0.05,
        less=True,
    )
    shapes = work.matrix_shapes(config)
    wide = {
        size: torch.randn(length, size, device=scene.device).bfloat16() for _, size, _ in shapes
    }
    products = 0.0
    for out, inputs, count in shapes:
        weight = torch.randn(out, inputs, device=scene.device).bfloat16()
        products += count * scene.seconds(lambda w=weight, i=inputs: wide[i] @ w.t())
    yield Figure(what="share of products in prefill", value=products / chunk, unit="share")
    ring = next(layer for layer in state.layers if "lru" not in layer._fields)
    q, k, v = (
        torch.randn(1, length, heads, config.head_dim, device=scene.device).bfloat16()
        for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    )
    window = ops.plan_window(where, config.attention_window_size, state.pos, True)
    one = scene.seconds(lambda: ops.local_attention(q, k, v, window, ring))
    layers = config.block_types.count("attention")
    yield Figure(what="share of attention in prefill", value=one * layers / chunk, unit="share")
