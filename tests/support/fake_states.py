"""States that are a function of the tokens read, without a model; conversations and sessions made
of them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import torch

from griffin.model import AttentionState, GriffinConfig, State
from griffin.sessions import Fingerprint, Session, Store, Turn, config_digest
from griffin.sessions.disk_folder import DiskFolder
from griffin.sessions.tokens import pack_ids

# Small, and of a window that turns cross all the time.
CONFIG = GriffinConfig(
    vocab_size=97,
    width=8,
    mlp_width=8,
    lru_width=6,
    num_heads=2,
    num_kv_heads=1,
    num_gate_blocks=2,
    block_types=("recurrent", "attention", "recurrent", "attention"),
    attention_window_size=16,
    conv_width=3,
)
HAWK = CONFIG.replace(block_types=("recurrent",) * 2)
ATTENTION = CONFIG.replace(block_types=("attention",) * 2)
ONE_TAP = CONFIG.replace(conv_width=1)
CONFIGS = {"griffin": CONFIG, "hawk": HAWK, "attention alone": ATTENTION, "one tap": ONE_TAP}


def fingerprint(config: GriffinConfig = CONFIG, **parts: str) -> Fingerprint:
    defaults = {"config": config_digest(config), "weights": "w" * 32, "dtype": "float32"}
    return Fingerprint(**{**defaults, **parts})


def fake_state(
    tokens: Sequence[int], config: GriffinConfig = CONFIG, dtype: torch.dtype = torch.float32
) -> State | None:
    """Return what such a model remembers of these tokens: position p's keys follow from the first p
    + 1."""
    if not tokens:
        return None
    state = State.zeros(config, dtype=dtype)
    state.pos.fill_(len(tokens))
    last = _numbers(tokens)
    for number, layer in enumerate(state.layers):
        if not isinstance(layer, AttentionState):
            for tensor in layer:
                tensor.copy_(_fill(tensor, last + number))
    rings = [layer for layer in state.layers if isinstance(layer, AttentionState)]
    if rings:
        size = config.attention_window_size
        for p in range(max(0, len(tokens) - size), len(tokens)):
            seed = _numbers(tokens[: p + 1])
            for number, ring in enumerate(rings):
                for offset, tensor in enumerate(ring):
                    tensor[0, p % size] = _fill(tensor[0, p % size], seed + 7 * number + offset)
    return state


def _numbers(tokens: Sequence[int]) -> int:
    return zlib.crc32(pack_ids(tokens))


def _fill(like: torch.Tensor, seed: int) -> torch.Tensor:
    steps = torch.arange(like.numel(), dtype=torch.float64)
    return ((steps + 1) * (seed % 99_991 + 1)).sin().to(like.dtype).reshape(like.shape)


def say(
    session: Session,
    ids: Sequence[int],
    *,
    pending: int = 1,
    role: str = "user",
    text: str | None = None,
) -> Turn:
    """Commit a turn of these ids; the state after it is the fake one of all tokens but the
    pending. text: how many ids there are, in words, if omitted."""
    tokens = [i for turn in session.turns() for i in turn.ids] + list(ids)
    read = tokens[: len(tokens) - pending]
    dtype = session.fingerprint.torch_dtype
    return session.commit(
        role=role,
        ids=list(ids),
        state=fake_state(read, session.config, dtype),
        pending=tokens[len(tokens) - pending :],
        text=f"said {len(ids)}" if text is None else text,
    )


def random_ids(chance: random.Random, longest: int = 40) -> list[int]:
    return [chance.randrange(CONFIG.vocab_size) for _ in range(chance.randint(1, longest))]


def same(actual: State | None, expected: State | None) -> bool:
    """Whether two states are equal to the bit, their types included."""
    if actual is None or expected is None:
        return actual is expected
    pairs = zip(actual.layers, expected.layers, strict=True)
    return torch.equal(actual.pos, expected.pos) and all(
        type(a) is type(b)
        and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in pairs
    )


def holds(session: Session, tokens: Sequence[int], pending: int = 1) -> bool:
    """Whether a session resumes exactly where these tokens lead."""
    resumed = session.resume()
    cut = len(tokens) - pending
    wanted = fake_state(tokens[:cut], session.config, session.fingerprint.torch_dtype)
    return resumed.pending == tuple(tokens[cut:]) and same(resumed.state, wanted)


def begin(store: Store, name: str | None = None, **more):
    return store.create(name, fingerprint=fingerprint(), config=CONFIG, **more)


def disk(store: Store) -> DiskFolder:
    """Return the folder of a store that has one."""
    assert isinstance(store.folder, DiskFolder)
    return store.folder
