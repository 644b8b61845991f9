"""A training step, beside one of a transformer of the same widths with causal flash attention."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from griffin import ops
from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.scene import Scene
from griffin.bench.training import Learner, Setting, griffin_learner
from griffin.model import GriffinConfig
from griffin.model.attention import LocalAttentionBlock
from griffin.model.state import AttentionState

_TOKENS = 8_192  # of a step, where rows are shorter
_LAYERS, _VOCABULARY = 9, 32_768  # of the true shape: weights, gradients and moments leave room
_BESIDE = {2_048: 1.0, 8_192: 1.1, 32_768: 1.65}
_SHARE = {8_192: 0.45}  # of the rate of products


def training(scene: Scene) -> Iterator[Figure]:
    """Take steps on rows of each length with both, in bfloat16 over float32 weights."""
    scene.forget()
    for length in scene.sizes.train:
        speeds: dict[str, float] = {}
        for name in ("griffin", "transformer"):
            learner = _learner(scene, name, length)
            setting = Setting(rows=max(1, _TOKENS // length), length=length, dtype="bfloat16")
            if scene.dry:
                setting = Setting(rows=1, length=length, dtype="bfloat16")
            seconds = _seconds(scene, learner, setting)
            speeds[name] = setting.tokens / seconds
            limit = scene.ceiling.operations_per_second / learner.operations(length)
            share = _SHARE.get(length) if name == "griffin" and not scene.dry else None
            yield Figure(
                what=f"training step, {name}, rows of {length:,}",
                value=speeds[name],
                unit="tokens/s",
                limit=limit,
                wanted=None if share is None else share * limit,
                detail={"shape": learner.shape, "tokens": setting.tokens, "seconds": seconds},
            )
            del learner
            scene.forget()
        yield Figure(
            what=f"training beside the transformer, rows of {length:,}",
            value=speeds["griffin"] / speeds["transformer"],
            unit="x",
            wanted=_BESIDE.get(length),
        )


class CausalAttention(LocalAttentionBlock):
    """Attention to all tokens before by torch's fused kernel: what makes a block a transformer's.

    Rows are one document each, and nothing goes on from them.
    """

    def forward(
        self,
        x: Tensor,
        window: Any,
        rope: tuple[Tensor, Tensor],
        state: Any,
        left: Any = None,
        marks: Any = None,
    ) -> tuple[Tensor, AttentionState]:
        q, k, v = self._projected(x)
        q, k = (ops.apply_rope(each, rope).to(v.dtype) for each in (q, k))
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(-2)), AttentionState(k[:, :, :0], v[:, :, :0])


def _learner(scene: Scene, name: str, length: int) -> Learner:
    config = scene.small
    if not scene.dry:
        config = config.replace(block_types=config.block_types[:_LAYERS], vocab_size=_VOCABULARY)
    if name == "transformer":
        config = _attending(config, length)
    with torch.device(scene.device):
        learner = griffin_learner(config, "bfloat16")
    if name == "transformer":
        for module in learner.model.modules():
            if isinstance(module, LocalAttentionBlock):
                module.__class__ = CausalAttention
    return learner


def _attending(config: GriffinConfig, length: int) -> GriffinConfig:
    """Return a config of the same widths and depth whose blocks all attend, to everything."""
    kinds = ("attention",) * config.num_layers
    return config.replace(block_types=kinds, attention_window_size=length)


def _seconds(scene: Scene, learner: Learner, setting: Setting) -> float:
    """Return the seconds of a step, the better of two after one that is not counted."""
    batch = setting.batch(32).rows(slice(None), scene.device)
    learner.step(batch)
    took: list[float] = []
    for _ in range(2):
        scene.wait()
        begun = time.perf_counter()
        learner.step(batch)
        scene.wait()
        took.append(time.perf_counter() - begun)
    return min(took)
