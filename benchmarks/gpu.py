"""`python -m benchmarks gpu`: transformers on the same GPU, beside our steps in the same run, and
single kernels beside those of libraries (gpu_kernels.py).

RecurrentGemma by transformers is the same model. Gemma of the same size is what it stands beside in
the paper: a transformer, whose step reads more with every token. Both have random weights, made on
the GPU, in bfloat16, and run as `generate` runs them by default: no graph, a cache that grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks import gpu_kernels
from griffin.bench.gpu.decoding import steps
from griffin.bench.gpu.figure import Figure, Waits
from griffin.bench.gpu.scene import Scene
from griffin.bench.gpu.sitting import SittingRow
from griffin.model import GriffinConfig

_FEW, _MANY = (1, 32), 128  # rows beside RecurrentGemma, and beside Gemma
_PIECE = 1_024  # tokens of its prompt in a call


def rivals(scene: Scene) -> Iterator[Figure]:
    """Step with both models of transformers, and with ours as many rows."""
    try:
        import transformers
    except ImportError:
        raise Waits("transformers is not installed; bring it along as a wheel") from None
    few, many = ((1,), 2) if scene.dry else (_FEW, _MANY)
    speeds: dict[int, float] = {}
    for figure in steps(scene, scene.small, "bf16", (*few, many), {}):
        if figure.unit == "tokens/s":
            speeds[figure.detail["rows"]] = figure.value  # the last one: of a long context
        yield figure
    scene.forget()
    short = scene.sizes.contexts[0]
    model = _recurrent_gemma(transformers, scene)
    for rows in few:
        yield from _beside(scene, "RecurrentGemma", model, rows, short, speeds[rows], 8.0)
    del model
    scene.forget()
    model = _gemma(transformers, scene)
    for context, wanted in ((short, None), (8 * short, 3.0)):
        yield from _beside(scene, "Gemma", model, many, context, speeds[many], wanted)


def _beside(
    scene: Scene,
    name: str,
    model: Any,
    rows: int,
    context: int,
    speed: float,
    wanted: float | None,
) -> Iterator[Figure]:
    what = f"transformers' {name}, {rows} rows, {context:,} tokens"
    theirs = rows / scene.seconds(_stepping(scene, model, rows, context))
    yield Figure(what=what, value=theirs, unit="tokens/s")
    yield Figure(what=f"ours beside {what}", value=speed / theirs, unit="x", wanted=wanted)


def _stepping(scene: Scene, model: Any, rows: int, context: int) -> Callable[[], Any]:
    """Return a step after so many tokens. A transformer reads them for one row, whose cache is
    then repeated; RecurrentGemma in one call, at whose beginning its convolution forgets."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    ids = torch.zeros(rows, 1, dtype=torch.int64, device=scene.device)
    seen = 0

    @torch.no_grad()
    def read(tokens: torch.Tensor) -> None:
        nonlocal seen
        at = torch.arange(seen, seen + tokens.shape[1], device=scene.device).expand_as(tokens)
        seen += tokens.shape[1]
        model(tokens, position_ids=at, past_key_values=cache, use_cache=True, logits_to_keep=1)

    if model.config.model_type == "gemma":
        for _ in range(0, context, _PIECE):
            read(ids[:1].expand(1, min(_PIECE, context)))
        cache.batch_repeat_interleave(rows)
    else:
        read(ids.expand(rows, context))
    return lambda: read(ids)


def _recurrent_gemma(transformers: Any, scene: Scene) -> Any:
    config: GriffinConfig = scene.small
    own = transformers.RecurrentGemmaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=2 * config.mlp_width,
        lru_width=config.lru_width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        attention_window_size=config.attention_window_size,
        block_types=list(config.block_types[:3]),  # which it repeats
    )
    return _made(transformers.RecurrentGemmaForCausalLM, own, scene)


def _gemma(transformers: Any, scene: Scene) -> Any:
    """Return a Gemma of 2B's published shape: 18 layers of 2,048, 8 heads of 256 on one key."""
    shape: dict[str, int] = {} if not scene.dry else {"num_hidden_layers": 2, "hidden_size": 32}
    if scene.dry:
        shape |= {"vocab_size": 96, "intermediate_size": 64, "head_dim": 16}
        shape |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    else:
        shape = {"num_hidden_layers": 18, "hidden_size": 2_048, "intermediate_size": 16_384}
        shape |= {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256}
    return _made(transformers.GemmaForCausalLM, transformers.GemmaConfig(**shape), scene)


def _made(kind: Any, config: Any, scene: Scene) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(scene.device):
            return kind(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


ROWS = (
    SittingRow(
        name="rivals",
        seconds=90,
        about="transformers' RecurrentGemma and Gemma beside our steps",
        run=rivals,
    ),
    *gpu_kernels.ROWS,
)
