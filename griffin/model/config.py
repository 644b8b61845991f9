"""The shape of a Griffin model: one frozen dataclass, strict about what it is given."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

BlockType = Literal["recurrent", "attention"]

# The most that a field may be: far above any model there is, and small enough that what is
# computed with it fits a machine word, and what is made of it a memory.
LARGEST = {
    "vocab_size": 1 << 24,
    "width": 1 << 17,
    "mlp_width": 1 << 19,
    "lru_width": 1 << 17,
    "num_heads": 1 << 12,
    "num_gate_blocks": 1 << 12,
    "attention_window_size": 1 << 20,
    "num_kv_heads": 1 << 12,
    "conv_width": 1 << 8,
}
MOST_LAYERS = 512
# From and to, in float32 without overflow on the way; 0 for the cap is apart: no cap.
_RANGES = {
    "logits_soft_cap": (1e-3, 1e9),
    "rms_norm_eps": (1e-30, 1.0),
    "rope_theta": (1.0, 1e12),
    "rope_fraction": (0.0, 1.0),
}


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
        if not isinstance(self.block_types, (list, tuple)):
            raise ValueError(f"block_types must be a list, not {_shown(self.block_types)}")
        object.__setattr__(self, "block_types", tuple(self.block_types))
        if not 1 <= len(self.block_types) <= MOST_LAYERS:
            raise ValueError(
                f"block_types has {len(self.block_types)} entries; a model has 1 to {MOST_LAYERS}"
                " layers"
            )
        for kind in self.block_types:
            if kind not in ("recurrent", "attention"):
                raise ValueError(
                    f"block_types holds {_shown(kind)}; allowed are 'recurrent' and 'attention'"
                )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int":
                check_whole(field.name, value)
            if field.type == "float":
                _check_number(field.name, value)
            if field.type == "bool" and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be true or false, not {_shown(value)}")
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
        if self.rope_width % 2:
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


def check_whole(name: str, value: Any) -> int:
    """Return the value of a field that is a whole number; ValueError, naming it, for any other."""
    most = LARGEST[name]
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise ValueError(
        f"{name} must be a whole number of at least 1 and at most {most}, not {_shown(value)}"
    )


def _check_number(name: str, value: Any) -> None:
    low, high = _RANGES[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and (low <= value <= high or (name == "logits_soft_cap" and value == 0)):
        return
    off = "0 (off) or " if name == "logits_soft_cap" else ""
    raise ValueError(f"{name} must be {off}a number from {low:g} to {high:g}, not {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    # The model that ships in this package; `griffin train nano` makes it.
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
