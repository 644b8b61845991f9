"""The scan alone beside a copy, a state's way back from host memory, by the prefix cache, and what
a fixed order of sums costs a step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

from griffin import ops
from griffin.bench import work
from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.scene import Scene
from griffin.engine.prefix_cache import PrefixCache

_CACHE = 256 << 20  # bytes of a prefix cache: a server's
_FEW = 32  # rows of a step from which on torch's order of sums is compared
_APART = 256 << 20  # bytes of weights that are multiplied by turns: more than a cache holds


def parts(scene: Scene) -> Iterator[Figure]:
    """Time the linear scan forward and backward, the restoring of one sequence, and a step's
    products."""
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
    batches = [rows for rows in scene.sizes.batches if rows >= _FEW]
    for rows in batches or scene.sizes.batches[-1:]:
        yield _fixed_order(scene, rows)


def _restore(scene: Scene) -> Figure:
    """Find a prompt whose state the prefix cache has in the host's memory alone, as an engine
    does."""
    config, tokens = scene.small, scene.sizes.contexts[0]
    where = {"device": scene.device, "on_device": 0}
    cache = PrefixCache("", config, torch.bfloat16, max_bytes=_CACHE, **where)
    ids = scene.tokens(config, 1, tokens + 1)[0].tolist()
    cache.put(ids[:-1], scene.state(config, 1, tokens))
    found = cache.find(ids)
    assert found.state is not None and found.tokens == tokens, found.reason
    seconds = scene.seconds(lambda: cache.find(ids))
    detail = {"bytes": found.state.nbytes, "tokens": tokens}
    what = "restore of a state from host memory"
    return Figure(what=what, value=seconds, unit="s", wanted=5e-3, less=True, detail=detail)


@torch.no_grad()
def _fixed_order(scene: Scene, rows: int) -> Figure:
    """Multiply by a step's matrices in the one order of sums that gives a row the same bits in any
    company, and by torch's products, whose order depends on the number of rows."""
    ours = theirs = 0.0
    config = scene.small
    for outputs, inputs, count in [
        *work.matrix_shapes(config),
        (config.vocab_size, config.width, 1),
    ]:
        copies = 1 if scene.dry else max(1, _APART // (2 * outputs * inputs))
        weights = [
            torch.randn(outputs, inputs, device=scene.device).bfloat16() for _ in range(copies)
        ]
        x = torch.randn(rows, inputs, device=scene.device).bfloat16()
        laid = [ops.lay([weight]) for weight in weights]

        def fixed(x: torch.Tensor = x, laid: list[ops.Laid] = laid) -> None:
            for each in laid:
                ops.few_rows(x, each)

        def torchs(x: torch.Tensor = x, weights: list[torch.Tensor] = weights) -> None:
            for each in weights:
                functional.linear(x, each)

        ours += count * scene.seconds(fixed, 0.1) / copies
        theirs += count * scene.seconds(torchs, 0.1) / copies
    return Figure(
        what=f"products of a step of {rows:,} rows, in a fixed order of sums beside torch's",
        value=ours / theirs,
        unit="x",
        wanted=1.1,
        less=True,
        detail={"fixed": ours, "torch": theirs},
    )
