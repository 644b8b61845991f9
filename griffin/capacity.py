"""What fits, and how fast it can be at most: arithmetic, before anything is loaded.

With a state of fixed size the memory of an engine is known to the byte: weights, so many slots of
the full window, a bound for the prefix cache. What the process itself and the values inside a call
take is estimated generously and named apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from griffin.engine.graph_memory import graph_bytes
from griffin.engine.pieces import recurrent_bytes, span_bytes
from griffin.engine.slots import Slots
from griffin.model import Griffin, GriffinConfig
from griffin.model.packed import packable, panel_count, panels_read
from griffin.ops.packed_linear import LAYOUTS, get_layout

RUNTIME_BYTES = 400 << 20  # Python, torch and this package, resident without a model
STATE_HEADER = 4096  # of a saved state: names, shapes and metadata before its tensors


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How the memory of a machine is divided. All in bytes but `slots` and `kept`.

    slots, kept:         sequences in an engine's slots, and states outside of them; arguments of
                         Engine.
    slot_bytes:          of each, the window filled.
    head, screen:        the formats of the head, where it is another, and of a preview beside it.
    weight_bytes:        of the model in its format, a preview of the head among them.
    runtime_bytes:       of the process without a model.
    working_bytes:       values inside a call, logits, and one state on its way in or out (an upper
                         estimate).
    prefix_cache_bytes:  the bound of the prefix cache.
    graph_bytes:         of stepping by graphs, on a GPU (`engine/graph_memory.py`).
    device_cache_bytes:  of the states that a prefix cache keeps on a GPU, besides (`DevicePart`).
    """

    config: GriffinConfig
    dtype: torch.dtype
    format: str | None
    ram_bytes: int
    slots: int
    kept: int
    slot_bytes: int
    weight_bytes: int
    runtime_bytes: int
    working_bytes: int
    prefix_cache_bytes: int
    graph_bytes: int = 0
    device_cache_bytes: int = 0
    head: str | None = None
    screen: str | None = None

    @property
    def screen_bytes(self) -> int:
        """Bytes of the head's preview, 0 where there is none."""
        return 0 if self.screen is None else self._head_bytes(self.screen)

    @property
    def live_bytes(self) -> int:
        """Bytes of all live sequences: what `Engine(slots=..., kept=...)` may take for states."""
        return (self.slots + self.kept) * self.slot_bytes

    @property
    def total_bytes(self) -> int:
        return (
            self.weight_bytes
            + self.runtime_bytes
            + self.working_bytes
            + self.prefix_cache_bytes
            + self.graph_bytes
            + self.device_cache_bytes
            + self.live_bytes
        )

    @property
    def spare_bytes(self) -> int:
        """What remains, less than one more sequence needs if `slots` was left to the plan."""
        return self.ram_bytes - self.total_bytes

    @property
    def session_bytes(self) -> int:
        """Bytes of a saved conversation that has filled the window."""
        return self.slot_bytes + STATE_HEADER

    @property
    def turn_bytes(self) -> tuple[int, int]:
        """Bytes that undoing a turn costs on disk: fixed, and for each token of the turn."""
        fixed, token = parts(self.config, self.dtype)
        return fixed + STATE_HEADER, token

    def sessions_on_disk(self, disk_bytes: int = 10**9) -> int:
        """Return how many saved conversations fit on so many bytes of disk, by default 1 GB."""
        return disk_bytes // self.session_bytes

    def step_bytes(self, rows: int = 1, context: int = 0) -> int:
        """Return the bytes that one step of `rows` sequences moves at least, after `context` tokens
        each.

        Every weight once (of an embedding that is no head a row for each sequence), and of each
        state the recurrent part read and written, the slots of the window that hold something read
        and one written. Of a head behind a screen two bits, and the panels that the rows choose:
        what greedy choices read.
        """
        config = self.config
        weights = self.weight_bytes
        if self.screen is not None:
            panels = panel_count(config.vocab_size)
            read = min(panels, rows * panels_read(config.vocab_size))
            head = self._head_bytes(self.head or self.format)
            weights += head * read // panels - head + self._head_bytes("int2") - self.screen_bytes
        if not config.tie_embeddings:
            table = _matrix_bytes(config.vocab_size, config.width, self.dtype, self.format)
            weights += table // config.vocab_size * rows - table
        fixed, token = parts(config, self.dtype)
        seen = min(context, config.attention_window_size)
        return weights + rows * (2 * fixed + token * (seen + 1))

    def _head_bytes(self, format: str | None) -> int:
        return _matrix_bytes(self.config.vocab_size, self.config.width, self.dtype, format)

    def tokens_per_second(
        self,
        read_rate: float,
        rows: int = 1,
        context: int = 0,
        operation_rate: float | None = None,
    ) -> float:
        """Return the most tokens a second that `rows` sequences together can be continued with.

        read_rate:      bytes a second that memory gives (`griffin bench decode` measures it).
        operation_rate: operations a second of matrix products, two for a multiply and add; if
                        given, the slower of the two bounds counts.
        A bound, not a promise: docs/benchmarks holds what was reached of it.
        """
        seconds = self.step_bytes(rows, context) / read_rate
        if operation_rate is not None:
            seconds = max(seconds, rows * step_operations(self.config) / operation_rate)
        return rows / seconds


def plan(
    config: GriffinConfig,
    *,
    ram_bytes: int,
    dtype: torch.dtype = torch.bfloat16,
    format: str | None = None,
    head: str | None = None,
    screen: str | None = None,
    slots: int | None = None,
    kept: int | None = None,
    chunk: int = 64,
    prefix_cache_bytes: int = 0,
    weight_bytes: int | None = None,
    runtime_bytes: int = RUNTIME_BYTES,
    graphs: bool = False,
    device_states: int = 0,
) -> Capacity:
    """Divide memory among weights, cache and live sequences.

    ram_bytes:          what all of it together may take.
    dtype, format:      the model's type, and the packed format of its matrices ("int8", ...; None:
                        plain).
    head, screen:       as for `model_bytes`.
    slots:              sequences that are wanted; as many as fit if omitted.
    kept:               states outside the slots; as many as slots if omitted, as in the server.
    chunk:              tokens of a prompt that a call reads.
    weight_bytes:       of the weights, where they are known better than by arithmetic.
    graphs:             steps are taken by graphs.
    device_states:      states that a prefix cache in the machine's memory keeps on the GPU.
    Raises ValueError if the slots that are wanted, or even one, do not fit; it says what would.
    """
    own = format, head, screen
    weights = model_bytes(config, dtype, *own) if weight_bytes is None else weight_bytes
    slot = Slots.bytes(config, dtype)

    def divide(count: int) -> Capacity:
        return Capacity(
            config=config,
            dtype=dtype,
            format=format,
            head=head,
            screen=screen,
            ram_bytes=ram_bytes,
            slots=count,
            kept=count if kept is None else kept,
            slot_bytes=slot,
            weight_bytes=weights,
            runtime_bytes=runtime_bytes,
            # With graphs a call of the model reads a prompt, and never steps.
            working_bytes=working_bytes(config, dtype, 1 if graphs else count, chunk) + slot,
            prefix_cache_bytes=prefix_cache_bytes,
            graph_bytes=graph_bytes(config, dtype, count) if graphs else 0,
            device_cache_bytes=device_states * slot,
        )

    wanted = 1 if slots is None else slots
    if wanted < 1:
        raise ValueError(f"slots must be at least 1, not {slots}")
    if divide(wanted).spare_bytes < 0:
        most, needed = 0, divide(wanted)
        if wanted > 1 and divide(1).spare_bytes >= 0:
            most = _most(lambda count: divide(count).spare_bytes >= 0, wanted)
        raise ValueError(
            f"{wanted} live sequences need {needed.total_bytes:,} bytes, {needed.weight_bytes:,} of"
            f" them weights; there are {ram_bytes:,}, "
            + (
                f"enough for {most} of them"
                if most
                else "less than the model with one of them takes"
            )
        )
    if slots is None:
        wanted = _most(lambda count: divide(count).spare_bytes >= 0, 2 + ram_bytes // slot)
    return divide(wanted)


def parts(config: GriffinConfig, dtype: torch.dtype) -> tuple[int, int]:
    """Return the bytes of a state's recurrent part with its position, and of a token's window.

    S(n) = R E 4 + R (W - 1) E b + A 2 K H b min(n, S), with R recurrent and A attention layers, b
    bytes a value: 460,800 and 8,192 bytes for 2B in bfloat16, and 8 more for the position.
    """
    return recurrent_bytes(config, dtype) + torch.int64.itemsize, span_bytes(config, dtype)


def model_bytes(
    config: GriffinConfig,
    dtype: torch.dtype,
    format: str | None = None,
    head: str | None = None,
    screen: str | None = None,
) -> int:
    """Return the bytes of a model's weights, matrices packed in a format or plain in `dtype`.

    head:   the format of the head, which is the embedding where the two are tied, if it is another.
    screen: that of a preview of the head beside it.
    """
    for name in (format, head, screen):
        if name is not None and name not in LAYOUTS:
            raise ValueError(
                f"no format {name!r}; there are {', '.join(LAYOUTS)}, and None for plain weights"
            )
    with torch.device("meta"):
        model = Griffin(config)
    formats = {f"{name}.weight": format for name in packable(model)}
    if head is not None:
        formats["model.embed_tokens.weight" if config.tie_embeddings else "lm_head.weight"] = head
    total = 0
    for name, parameter in model.named_parameters():
        if name in formats:
            total += _matrix_bytes(parameter.shape[0], parameter.shape[1], dtype, formats[name])
        else:
            total += parameter.numel() * dtype.itemsize
    if screen is not None:
        total += _matrix_bytes(config.vocab_size, config.width, dtype, screen)
    return total


def working_bytes(config: GriffinConfig, dtype: torch.dtype, rows: int, chunk: int) -> int:
    """Return about the most that values inside a call take: a prompt's piece, a step's logits."""
    wide = 4
    keys = config.attention_window_size + chunk if "attention" in config.block_types else 0
    kv = config.num_kv_heads * config.head_dim
    piece = chunk * (3 * config.mlp_width + 8 * config.width + 6 * config.lru_width) * wide
    piece += 2 * config.num_heads * chunk * keys * wide + 4 * keys * kv * dtype.itemsize
    # The rows', and one sampler's.
    logits = 3 * rows * config.vocab_size * wide + 6 * config.vocab_size * 8
    return piece + logits


def step_operations(config: GriffinConfig) -> int:
    """Return the operations of one token: two for each weight of a matrix, the head included."""
    with torch.device("meta"):
        model = Griffin(config)
    names = set(packable(model)) - (set() if config.tie_embeddings else {"model.embed_tokens"})
    matrices = sum(model.get_parameter(f"{name}.weight").numel() for name in names)
    gates = (
        2 * config.lru_width**2 // config.num_gate_blocks * config.block_types.count("recurrent")
    )
    return 2 * (matrices + gates)


def _matrix_bytes(rows: int, inputs: int, dtype: torch.dtype, format: str | None) -> int:
    if format is None:
        return rows * inputs * dtype.itemsize
    return get_layout(format).nbytes(rows, inputs)


def _most(fits: Callable[[int], bool], limit: int) -> int:
    """Return the most sequences that fit, of 1 (which do) up to below `limit` (which do not)."""
    low, high = 1, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
