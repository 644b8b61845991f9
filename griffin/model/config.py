"""The shape of a Griffin model: one frozen dataclass, strict about what it is given."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

BlockType = Literal["recurrent", "attention"]


@dataclass(frozen=True, kw_only=True)
class GriffinConfig:
    """Describe a Griffin or Hawk model. Every field changes what the model computes.

    vocab_size             rows of the embedding.
    width                  D, the width of the residual stream.
    mlp_width              F, the inner width of the gated MLP (3 D in every released model).
    lru_width              E, the width of the recurrence.
    num_heads              N, query heads; a head is H = D / N wide.
    num_kv_heads           K, key and value heads (1: multi-query attention).
    num_gate_blocks        blocks of the block-diagonal gates; released models: equal to num_heads.
    block_types            one entry a layer, "recurrent" or "attention".
    attention_window_size  a query sees itself and this many tokens before it.
    conv_width             W, taps of the causal convolution.
    logits_soft_cap        c in c tanh(logits / c); 0 leaves logits as they are.
    scale_embeddings       multiply embeddings by sqrt(D), rounded to bfloat16 as in training.
    rms_norm_eps           added to the mean square in RMSNorm.
    rope_theta             base of the rotary frequencies.
    rope_fraction          the part of each head that is rotated.
    attention_bias         biases on the query, key and value projections (no released model has
                           them).
    tie_embeddings         the head is the embedding; otherwise `lm_head.weight` is its own matrix.

    Griffin (arXiv:2402.19427), section 2 and table 2; RecurrentGemma (arXiv:2404.07839), table 1.
    """

    vocab_size: int
    width: int
    mlp_width: int
    lru_width: int
    num_heads: int
    num_gate_blocks: int
    block_types: tuple[BlockType, ...]
    attention_window_size: int
    num_kv_heads: int = 1
    conv_width: int = 4
    logits_soft_cap: float = 0.0
    scale_embeddings: bool = False
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_fraction: float = 0.5
    attention_bias: bool = False
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_types", tuple(self.block_types))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ValueError(
                    f"{field.name} must be a whole number of at least 1, not {value!r}"
                )
            if field.type == "float" and (
                not isinstance(value, (int, float)) or isinstance(value, bool)
            ):
                raise ValueError(f"{field.name} must be a number, not {value!r}")
            if field.type == "bool" and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be true or false, not {value!r}")
        if not self.block_types:
            raise ValueError("block_types is empty; a model needs at least one layer")
        for kind in self.block_types:
            if kind not in ("recurrent", "attention"):
                raise ValueError(
                    f"block_types holds {kind!r}; allowed are 'recurrent' and 'attention'"
                )
        for total, parts in (
            ("width", "num_heads"),
            ("lru_width", "num_gate_blocks"),
            ("num_heads", "num_kv_heads"),
        ):
            if getattr(self, total) % getattr(self, parts):
                raise ValueError(
                    f"{total}={getattr(self, total)} is not a multiple of"
                    f" {parts}={getattr(self, parts)}"
                )
        if self.logits_soft_cap < 0:
            raise ValueError(
                f"logits_soft_cap must be 0 (off) or positive, not {self.logits_soft_cap}"
            )
        if self.rms_norm_eps <= 0 or self.rope_theta <= 0:
            raise ValueError("rms_norm_eps and rope_theta must be positive")
        if not 0 <= self.rope_fraction <= 1 or self.rope_width % 2:
            raise ValueError(
                f"rope_fraction={self.rope_fraction} of a head of {self.head_dim} must be a whole,"
                " even width"
            )

    @property
    def num_layers(self) -> int:
        return len(self.block_types)

    @property
    def head_dim(self) -> int:
        """H, the width of one attention head."""
        return self.width // self.num_heads

    @property
    def rope_width(self) -> int:
        """The number of leading entries of a head that are rotated."""
        return int(self.head_dim * self.rope_fraction)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, the inverse of `from_dict`."""
        return dataclasses.asdict(self) | {"block_types": list(self.block_types)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GriffinConfig:
        """Build a config from plain values; an unknown or missing key is a ValueError that names
        it."""
        known = {f.name for f in dataclasses.fields(cls)}
        check_keys(fields, known, "config")
        required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        if missing := sorted(required - set(fields)):
            raise ValueError(f"config lacks {', '.join(missing)}")
        return cls(**fields)

    def replace(self, **changes: Any) -> GriffinConfig:
        """Return a copy with some fields changed; ValueError for an unknown one, naming it."""
        return GriffinConfig.from_dict(self.to_dict() | changes)

    @classmethod
    def preset(cls, name: str) -> GriffinConfig:
        """Return a published shape: a name of `PRESETS`, such as "recurrentgemma-2b"."""
        if name not in PRESETS:
            raise ValueError(
                f"no preset {name!r}{_suggest(name, PRESETS)}; there are {', '.join(PRESETS)}"
            )
        return PRESETS[name]


def check_keys(given: Mapping[str, Any], known: set[str], what: str) -> None:
    """Raise ValueError for keys of `given` not in `known`, listed with the nearest known ones."""
    if unknown := [key for key in given if key not in known]:
        listed = ", ".join(f"{key!r}{_suggest(key, known)}" for key in unknown)
        raise ValueError(f"{what} has unknown keys: {listed}; known are {', '.join(sorted(known))}")


def _suggest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def block_pattern(num_layers: int, pattern: tuple[BlockType, ...]) -> tuple[BlockType, ...]:
    """Repeat a pattern of block types and cut it to `num_layers`."""
    repeats = -(-num_layers // len(pattern))
    return (pattern * repeats)[:num_layers]


GRIFFIN_PATTERN = cast(tuple[BlockType, ...], ("recurrent", "recurrent", "attention"))
HAWK_PATTERN = cast(tuple[BlockType, ...], ("recurrent",))


def _recurrentgemma(width: int, num_layers: int, num_heads: int) -> GriffinConfig:
    return GriffinConfig(
        vocab_size=256_000,
        width=width,
        mlp_width=3 * width,
        lru_width=width,
        num_heads=num_heads,
        num_gate_blocks=num_heads,
        block_types=block_pattern(num_layers, GRIFFIN_PATTERN),
        attention_window_size=2048,
        logits_soft_cap=30.0,
        scale_embeddings=True,
    )


def _paper(
    pattern: tuple[BlockType, ...],
    width: int,
    lru_width: int,
    num_layers: int,
    num_heads: int,
    gates: int,
) -> GriffinConfig:
    return GriffinConfig(
        vocab_size=256_000,
        width=width,
        mlp_width=3 * width,
        lru_width=lru_width,
        num_heads=num_heads,
        num_gate_blocks=gates,
        block_types=block_pattern(num_layers, pattern),
        attention_window_size=1024,
    )


# Griffin paper, table 2: width, RNN width, depth, heads. Its gates have 16 blocks (section 2.4);
# the reference code's 7B presets have as many as heads, and so have ours, so that its checkpoints
# load.
_TABLE_2 = {
    "100m": (768, 1024, 12, 6, 16),
    "200m": (1024, 1536, 12, 8, 16),
    "400m": (1536, 2048, 12, 12, 16),
    "1.3b": (2048, 2560, 24, 16, 16),
    "3b": (3072, 4096, 24, 24, 16),
    "7b": (4096, 5632, 32, 32, 32),
    "14b": (5120, 8192, 40, 40, 16),
}

PRESETS: dict[str, GriffinConfig] = {
    "recurrentgemma-2b": _recurrentgemma(2560, 26, 10),
    "recurrentgemma-9b": _recurrentgemma(4096, 38, 16),
    **{f"griffin-{size}": _paper(GRIFFIN_PATTERN, *shape) for size, shape in _TABLE_2.items()},
    **{f"hawk-{size}": _paper(HAWK_PATTERN, *shape) for size, shape in _TABLE_2.items()},
    # The model that ships in this package; recipes/nano.toml trains it.
    "nano": GriffinConfig(
        vocab_size=4096,
        width=192,
        mlp_width=576,
        lru_width=192,
        num_heads=3,
        num_gate_blocks=3,
        block_types=block_pattern(6, GRIFFIN_PATTERN),
        attention_window_size=256,
        logits_soft_cap=30.0,
        scale_embeddings=True,
    ),
}
