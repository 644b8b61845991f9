"""Training beside a transformer of equal size and transformers' RecurrentGemma, by turns.

All take the same step on the same rows in one process: optimiser, loss in tiles, type of products,
threads. The share of the matrix rate is each one's own, so that nobody wins against a slow one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.llama import Llama
from griffin.bench.measurement import Measurement, Report
from griffin.bench.training import DTYPES, Learner, Setting, griffin_learner, measure
from griffin.bench.work import attention_operations, matrix_shapes, training_operations
from griffin.model import GriffinConfig
from griffin.model.config import GRIFFIN_PATTERN, block_pattern
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import chunked_cross_entropy


def shape(width: int, depth: int, vocab: int, window: int = 1024) -> GriffinConfig:
    """Return a Griffin of the paper's pattern, with four heads."""
    return GriffinConfig(
        vocab_size=vocab,
        width=width,
        mlp_width=3 * width,
        lru_width=width,
        num_heads=4,
        num_gate_blocks=4,
        block_types=block_pattern(depth, GRIFFIN_PATTERN),
        attention_window_size=window,
    )


SHAPES = {"42m": shape(512, 12, 8192), "5.9m": shape(256, 6, 4096), "toy": shape(64, 3, 256, 16)}


def transformer(config: GriffinConfig, dtype: str) -> Learner:
    """Return a transformer as wide and deep as a Griffin, of as many heads, vocabulary and weights.

    Its MLPs are narrower or wider so that the weights are as many.
    """
    width, layers = config.width, config.num_layers
    with torch.device("meta"):
        known = griffin_learner(config, dtype).model
    total = sum(p.numel() for p in known.parameters()) - config.vocab_size * width
    mlp_width = round((total / layers - 4 * width**2) / (3 * width))
    torch.manual_seed(0)
    model = Llama(config.vocab_size, width, layers, config.num_heads, mlp_width)
    weights = sum(p.numel() for p in model.parameters())
    described = f"{weights / 1e6:.1f}M, {width} wide, {layers} layers, causal"
    return Learner(
        "transformer",
        described,
        model,
        _nats(model, model.embed_tokens.weight, model, dtype),
        lambda length: 6 * weights + layers * attention_operations(width, (length + 1) / 2),
    )


def compiled(config: GriffinConfig, dtype: str) -> Learner:
    """Return ours with its forward pass and loss, and what goes back, under torch.compile."""
    learner = griffin_learner(config, dtype)
    learner.name, learner.nats = "torch.compile", torch.compile(learner.nats, dynamic=False)
    return learner


def recurrentgemma(config: GriffinConfig, dtype: str) -> Learner:
    """Return transformers' model of the same config; ValueError if it is not installed."""
    try:
        from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM
    except ModuleNotFoundError as error:
        raise ValueError(f"transformers cannot run here: {error}") from error
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "num_hidden_layers": config.num_layers,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": 2 * config.mlp_width,  # it halves it
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "lru_width": config.lru_width,
        "attention_window_size": config.attention_window_size,
        "block_types": list(GRIFFIN_PATTERN),
    }
    model: Any = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**fields))
    trunk = model.model
    weights = sum(p.numel() for p in model.parameters())

    def hidden(tokens: Tensor) -> Tensor:
        return trunk(tokens, use_cache=False).last_hidden_state

    described = f"{weights / 1e6:.1f}M, {config.width} wide, {config.num_layers} layers"
    return Learner(
        "transformers",
        described,
        model,
        _nats(model, trunk.embed_tokens.weight, hidden, dtype),
        lambda length: training_operations(config, weights, length),
    )


def _nats(model: nn.Module, head: Tensor, hidden: Any, dtype: str) -> Any:
    """Return the loss of rows of a model whose head is its embedding."""

    def nats(batch: TrainBatch) -> Tensor:
        with torch.autocast("cpu", DTYPES[dtype], enabled=dtype != "float32"):
            x = hidden(batch.tokens)
        return chunked_cross_entropy(x, head, batch.targets, batch.mask, dtype=DTYPES[dtype])[0]

    return nats


RIVALS = {"transformer": transformer, "transformers": recurrentgemma, "torch.compile": compiled}


def train(
    report: Report,
    name: str,
    lengths: Sequence[int],
    tokens: int,
    against: Sequence[str],
    dtype: str,
    threads: int,
    rounds: int,
    longest: int,
    *,
    profile: bool = False,
    probe: float = 0.4,
) -> Iterator[Measurement]:
    """Yield what ours and the rivals do at each length, `tokens` a step.

    longest: rows that transformers' model gets at most; it loops over time in Python.
    """
    config = SHAPES[name]
    learners = [griffin_learner(config, dtype)]
    learners += [RIVALS[rival](config, dtype) for rival in against]
    for length in lengths:
        setting = Setting(
            rows=max(1, tokens // length), length=length, dtype=dtype, threads=threads
        )
        now = [each for each in learners if each.name != "transformers" or length <= longest]
        found = measure(
            report,
            now,
            setting,
            matrix_shapes(config),
            config.vocab_size,
            rounds,
            profile=profile,
            probe=probe,
        )
        first = found[0].tokens_per_second or 0.0
        for rival in found[1:]:
            ratio = first / (rival.tokens_per_second or 1.0)
            report.notes.append(f"{name}, {length:,} tokens: {ratio:.2f} times {rival.program}")
        yield from found
