"""What a token costs at least: bytes that have to move and operations that have to be done.

Weights are counted by the tensors a model holds, whatever their format; state by the tensors of a
State; what an implementation moves besides (copies, activations) is its own affair and shows in the
ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

from griffin.model import Griffin, GriffinConfig, State
from griffin.ops.packed_linear import upper_bits


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's tensors, each once: parameters, buffers, packed weights."""
    sizes = {
        (t.data_ptr(), t.nbytes): t.nbytes for module in model.modules() for t in _tensors(module)
    }
    return sum(sizes.values())


def decode_bytes(model: Griffin, bits: Literal[2, 3] = 2) -> int:
    """Return the bytes of weights a step reads: all, but one row of an embedding that is no head.

    A row of the embedding that is also the head is read with the head and not counted twice. Of a
    head behind a screen some panels are read, and so many bits a weight of the screen.
    """
    total = weight_bytes(model)
    if model.screen is not None:
        total += screened_bytes(model, bits) - weight_bytes(model.screen) - head_bytes(model)
    if model.config.tie_embeddings:
        return total
    embedding = weight_bytes(model.model.embed_tokens)
    return total - embedding + embedding // model.config.vocab_size


def head_bytes(model: Griffin) -> int:
    """Return the bytes of a model's whole head."""
    return weight_bytes(model.model.embed_tokens if model.config.tie_embeddings else model.lm_head)


def screened_bytes(model: Griffin, bits: Literal[2, 3] = 2) -> int:
    """Return the bytes that a row reads of a head behind a screen: of the preview so many bits a
    weight, and some panels."""
    assert model.screen is not None
    preview = model.screen.packed if bits == 3 else upper_bits(model.screen.packed)
    panels, all_panels = model.screen.panels[bits], len(preview.data)
    return preview.nbytes + head_bytes(model) * panels // all_panels


def state_bytes(state: State, context: int) -> int:
    """Return the bytes of one sequence's state that a step after `context` tokens touches.

    Recurrent layers: all of it read and written. Attention: the slots that hold something read, one
                      written.
    """
    touched = 0
    for layer in state.layers:
        for name, tensor in zip(layer._fields, layer, strict=True):
            row = tensor.nbytes // state.batch
            if name in ("k", "v"):
                slots = tensor.shape[1]
                touched += row // slots * (min(context, slots) + 1)
            else:
                touched += 2 * row
    return touched


def operations(config: GriffinConfig, context: int, head: bool = True) -> int:
    """Return operations of one token that sees `context` tokens: two for each multiply and add.

    Matrix products and attention; the convolution, the recurrence and the norms are less than one
    in a thousand. head: the logits are computed too.
    """
    d, e = config.width, config.lru_width
    kv = config.num_kv_heads * config.head_dim
    mlp = 3 * d * config.mlp_width
    recurrent = 3 * d * e + 2 * e * e // config.num_gate_blocks
    seen = min(context, config.attention_window_size) + 1
    attention = 2 * d * d + 2 * d * kv + 2 * d * seen
    kinds = config.block_types
    total = sum((recurrent if kind == "recurrent" else attention) + mlp for kind in kinds)
    return 2 * (total + (config.vocab_size * d if head else 0))


def prefill_operations(config: GriffinConfig, length: int, start: int = 0) -> float:
    """Return operations a token of `length` prompt tokens, read after `start` others.

    Of the logits the last ones alone are wanted.
    """
    window = config.attention_window_size
    mean = (_seen(start + length, window) - _seen(start, window)) / length
    layers = config.block_types.count("attention")
    base = operations(config, 0, head=False) + layers * 4 * config.width * mean
    return base + 2 * config.vocab_size * config.width / length


def training_operations(config: GriffinConfig, weights: int, length: int) -> float:
    """Return operations a token of a training step on documents of `length`.

    Forward once and backward twice: 6 x weights (those of `trained_weights`), and attention's.
    What is computed again to save memory is not counted.
    """
    seen = 1 + _seen(length, config.attention_window_size) / length
    layers = config.block_types.count("attention")
    return 6.0 * weights + layers * attention_operations(config.width, seen)


def attention_operations(width: int, seen: float) -> float:
    """Return operations a token of one layer's attention to `seen` tokens, forward and back.

    width: that of all query heads.
    """
    return 3 * 4 * width * seen


def trained_weights(model: Griffin) -> int:
    """Return the weights that a token is multiplied by: all, but an embedding that is no head."""
    total = sum(p.numel() for p in model.parameters())
    tied = model.config.tie_embeddings
    return total - (0 if tied else model.model.embed_tokens.weight.numel())


def _seen(tokens: int, window: int) -> float:
    """Return how many earlier tokens the first `tokens` of a document see, all together."""
    ramp = min(tokens, window)
    return ramp * (ramp - 1) / 2 + (tokens - ramp) * window


def matrix_shapes(config: GriffinConfig) -> list[tuple[int, int, int]]:
    """Return (outputs, inputs, count) of the matrices of a prompt's products, without the head."""
    d, e, f = config.width, config.lru_width, config.mlp_width
    kv = config.num_kv_heads * config.head_dim
    recurrent = config.block_types.count("recurrent")
    attention = config.block_types.count("attention")
    counts: dict[tuple[int, int], int] = {}
    for shape, count in (
        ((f, d), 2 * config.num_layers),
        ((d, f), config.num_layers),
        ((e, d), 2 * recurrent),
        ((d, e), recurrent),
        ((d, d), 2 * attention),
        ((kv, d), 2 * attention),
    ):
        if count:
            counts[shape] = counts.get(shape, 0) + count
    return [(out, inputs, count) for (out, inputs), count in counts.items()]


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for value in vars(module).values():
        yield from _within(value)


def _within(value: Any) -> Iterator[Tensor]:
    """Find tensors in what a module keeps: its own, and those of the records packed weights come
    in."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        return  # `modules()` comes to it by itself
    elif isinstance(value, dict):
        for item in value.values():
            yield from _within(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _within(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from _within(getattr(value, name))
