"""DeepMind's tensor names and shapes <-> Hugging Face's: one table, both ways.

Each rule says which Hugging Face tensors one DeepMind tensor becomes, and how. Flax and torch
archives use the same names except for the weights of dense layers: `kernel`, transposed, in Flax. A
test proves that the table is a bijection for every config DeepMind's layout can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from griffin.checkpoints.names import EMBEDDING, tensor_shapes
from griffin.model import GriffinConfig

Flavour = Literal["torch", "flax"]


@dataclass(frozen=True)
class Transform:
    """How one stored tensor becomes one or two of ours, and back."""

    split: Callable[[Tensor], tuple[Tensor, ...]]
    join: Callable[[tuple[Tensor, ...]], Tensor]
    views: bool  # split returns views whose values lie as in the stored tensor: nothing is moved


def _conv_split(w: Tensor) -> tuple[Tensor, ...]:
    return (w.t().unsqueeze(1),)  # (W, E) -> (E, 1, W)


def _conv_join(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0].squeeze(1).t()


COPY = Transform(lambda w: (w,), lambda parts: parts[0], views=True)
TRANSPOSE = Transform(lambda w: (w.t(),), lambda parts: parts[0].t(), views=False)
CONV = Transform(_conv_split, _conv_join, views=False)
# The MLP's two up-projections are one einsum there: (2, D, F) and its bias (2, 1, 1, F).
PAIR = Transform(
    lambda w: (w[0].t(), w[1].t()), lambda p: torch.stack([p[0].t(), p[1].t()]), views=False
)
PAIR_BIAS = Transform(
    lambda b: (b[0].flatten(), b[1].flatten()),
    lambda p: torch.stack(p)[:, None, None, :],
    views=True,
)


@dataclass(frozen=True)
class Rule:
    """One tensor as it is stored, and the Hugging Face tensors it holds."""

    stored: str
    huggingface: tuple[str, ...]
    transform: Transform

    def shape(self, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Return the shape of the stored tensor, given those of the Hugging Face ones."""
        parts = tuple(torch.empty(shapes[name], device="meta") for name in self.huggingface)
        return tuple(self.transform.join(parts).shape)


# (DeepMind, Hugging Face) below a layer. "*" stands for a dense layer: its weight and its bias.
_LAYER = (
    ("temporal_pre_norm.scale", "temporal_pre_norm.weight"),
    ("channel_pre_norm.scale", "channel_pre_norm.weight"),
    ("mlp_block.ffw_down*", "mlp_block.down_proj*"),
)
_RECURRENT = (
    ("recurrent_block.linear_x*", "temporal_block.linear_x*"),
    ("recurrent_block.linear_y*", "temporal_block.linear_y*"),
    ("recurrent_block.linear_out*", "temporal_block.linear_out*"),
    ("recurrent_block.conv_1d.b", "temporal_block.conv_1d.bias"),
    ("recurrent_block.rg_lru.a_param", "temporal_block.rg_lru.recurrent_param"),
    ("recurrent_block.rg_lru.input_gate.w", "temporal_block.rg_lru.input_gate_weight"),
    ("recurrent_block.rg_lru.input_gate.b", "temporal_block.rg_lru.input_gate_bias"),
    ("recurrent_block.rg_lru.a_gate.w", "temporal_block.rg_lru.recurrent_gate_weight"),
    ("recurrent_block.rg_lru.a_gate.b", "temporal_block.rg_lru.recurrent_gate_bias"),
)
_ATTENTION = (
    ("attention_block.proj_q", "temporal_block.q_proj"),
    ("attention_block.proj_k", "temporal_block.k_proj"),
    ("attention_block.proj_v", "temporal_block.v_proj"),
    ("attention_block.proj_final*", "temporal_block.o_proj*"),
)


def rules(config: GriffinConfig, flavour: Flavour) -> dict[str, Rule]:
    """Return the rule of each DeepMind tensor of a model by its name (Flax keys, with dots)."""
    dense = ("weight", COPY) if flavour == "torch" else ("kernel", TRANSPOSE)
    found = [Rule("embedder.input_embedding", (EMBEDDING,), COPY)]
    for number, kind in enumerate(config.block_types):
        old, new = f"blocks.{number}.", f"model.layers.{number}."
        up = ("gate_proj", "up_proj")
        for theirs, ours in _LAYER + (_RECURRENT if kind == "recurrent" else _ATTENTION):
            bare, other = old + theirs.rstrip("*"), new + ours.rstrip("*")
            if theirs.endswith("*") or theirs.startswith("attention_block.proj"):
                found.append(Rule(f"{bare}.{dense[0]}", (other + ".weight",), dense[1]))
                if theirs.endswith("*"):
                    found.append(Rule(bare + ".bias", (other + ".bias",), COPY))
            else:
                found.append(Rule(bare, (other,), COPY))
        if kind == "recurrent":
            conv = new + "temporal_block.conv_1d.weight"
            found.append(Rule(old + "recurrent_block.conv_1d.w", (conv,), CONV))
        for part, suffix, transform in (("w", "weight", PAIR), ("b", "bias", PAIR_BIAS)):
            names = tuple(f"{new}mlp_block.{name}.{suffix}" for name in up)
            found.append(Rule(f"{old}mlp_block.ffw_up.{part}", names, transform))
    found.append(Rule("final_norm.scale", ("model.final_norm.weight",), COPY))
    return {rule.stored: rule for rule in found}


def deepmind_shapes(config: GriffinConfig, flavour: Flavour) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a DeepMind archive of this model."""
    shapes = tensor_shapes(config)
    return {name: rule.shape(shapes) for name, rule in rules(config, flavour).items()}


def fits_deepmind(config: GriffinConfig) -> list[str]:
    """Return what DeepMind's archives and code cannot express about a config; empty if nothing."""
    fixed = {
        "num_kv_heads": 1,
        "conv_width": 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "rope_fraction": 0.5,
        "attention_bias": False,
        "tie_embeddings": True,
    }
    reasons = [
        f"{name}={getattr(config, name)} (there it is always {value})"
        for name, value in fixed.items()
        if getattr(config, name) != value
    ]
    if config.num_gate_blocks != config.num_heads and "attention" in config.block_types:
        reasons.append(
            f"num_gate_blocks={config.num_gate_blocks} differs from num_heads={config.num_heads}"
        )
    return reasons
