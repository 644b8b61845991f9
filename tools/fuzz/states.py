"""States that do not fit a model, and their files: refused by name, or read as the ops read them.

A case is a small model, packed or not, tokens, and a state of it in which up to two things were
changed: `pos`, a tensor's rows, shape, type, device, order in memory, or the layers; or a saved
state of which bytes, names or metadata were changed. The model must raise ValueError or give the
numbers that its formulas give; nothing may read or write outside its memory.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from griffin import ops
from griffin.engine import Context
from griffin.engine.request import Request, check_request
from griffin.model import AttentionState, Griffin, GriffinConfig, RecurrentState, State
from griffin.quant import quantize_model
from tests.support.toy_models import GRIFFIN, HAWK, make_model

ALLOWED = (ValueError,)
WIDE = GRIFFIN.replace(attention_window_size=300, num_kv_heads=1, attention_bias=False)
MODELS = {
    "unpacked": (GRIFFIN, None),
    "int8": (GRIFFIN, "int8"),
    "bf16, a wide window": (WIDE, "bf16"),
    "hawk": (HAWK, None),
    "hawk, int4": (HAWK, "int4"),
}
PLACES = (0, 0, 1, 15, 16, 17, 40, 2**31, 2**53 - 40)
POSITIONS = (-1, -(2**63), -199_999, 2**63 - 2, 2**62, 2**53, 2**53 - 1, 0, 7)


@dataclass(frozen=True)
class Case:
    """A call of a model, or a file of a state; `changes` says what was done."""

    model: str
    state: State
    tokens: Tensor
    donate: bool
    grad: bool
    file: bytes | None
    changes: tuple[str, ...]

    def __str__(self) -> str:
        given = f"tokens {tuple(self.tokens.shape)}, pos {self.state.pos.shape}"
        return f"{self.model}: {given}, donate={self.donate}: {'; '.join(self.changes)}"


@cache
def model_of(name: str) -> Griffin:
    """Return a toy model, packed or not."""
    config, format = MODELS[name]
    model = make_model(config, dtype=torch.bfloat16 if format == "bf16" else torch.float32)
    return model if format is None else quantize_model(model, format)


def fitting(config: GriffinConfig, chance: random.Random, rows: int, dtype: torch.dtype) -> State:
    """Return a state of a model, filled with small numbers."""
    state = State.zeros(config, rows, dtype=dtype)
    seed = chance.getrandbits(32)
    generator = torch.Generator().manual_seed(seed)
    for layer in state.layers:
        for t in layer:
            t.copy_(torch.randn(t.shape, generator=generator))
    pos = torch.tensor([chance.choice(PLACES) for _ in range(rows)], dtype=torch.int64)
    return State(pos, state.layers)


def make(chance: random.Random) -> Case:
    """Draw a case."""
    name = chance.choice(list(MODELS))
    config, model = MODELS[name][0], model_of(name)
    rows, steps = chance.choice([1, 1, 2, 5]), chance.choice([1, 1, 2, 20, 40])
    state = fitting(config, chance, rows, model.dtype)
    tokens = torch.tensor(
        [[chance.randrange(config.vocab_size) for _ in range(steps)] for _ in range(rows)]
    )
    changes, file = [], None
    for _ in range(chance.choice([0, 1, 1, 1, 2])):
        kind = chance.choice(["pos", "tensor", "tensor", "layers", "tokens", "file"])
        if kind == "file" and file is None:
            file, what = _damaged(chance, state)
        elif kind == "tokens":
            tokens, what = _other_tokens(chance, tokens)
        else:
            state, what = _changed(chance, state, kind)
        changes.append(what)
    flags = chance.random() < 0.3, chance.random() < 0.2
    return Case(name, state, tokens, *flags, file, tuple(changes))


def attempt(case: Case) -> None:
    """Read tokens after a state, by the fast path and by formulas; or read its file first."""
    model, state = model_of(case.model), case.state
    if case.file is not None:
        state = _load(case.file)
    apart = _try(lambda: check_request(_request(state), model))
    chosen = _try(lambda: _read(model, case, state))
    with ops.use("eager"):
        expected = _try(lambda: _read(model, case, state))
    refused = isinstance(chosen, ValueError), isinstance(expected, ValueError)
    assert refused[0] == refused[1], f"{case}: {chosen!r:.300}, by formulas {expected!r:.300}"
    if not refused[0]:
        usual = state.pos.shape == (1,)
        assert not (usual and apart is not None), f"{case}: the engine refuses it: {apart}"
        for one, other in zip(chosen, expected, strict=True) if _usual(state) else ():
            most = 0.1 * float(other.abs().max().double().clamp(1e-3))
            torch.testing.assert_close(one, other, rtol=0, atol=most, msg=lambda t: f"{case}: {t}")
    for what in (lambda: State.cat([state, state]), lambda: state.select([0])):
        _try(what)
    if isinstance(chosen, ValueError):
        raise chosen


def _request(state: State) -> Request:
    return Request(context=Context(state=state, pending=(1,), tokens=2))


def _read(model: Griffin, case: Case, state: State) -> list[Tensor]:
    before = [t.clone() for t in _tensors(state)]
    with torch.set_grad_enabled(case.grad):
        given = _copy(state) if case.donate else state
        hidden, after = model.trunk(case.tokens, given, donate=case.donate)
    for t, kept in zip(_tensors(state), before, strict=True):
        same = t.is_meta or torch.equal(t.nan_to_num(0.5), kept.nan_to_num(0.5))
        assert same, f"{case}: the state that went in has changed"
    return [hidden.detach(), *(t.detach() for t in _tensors(after))]


def _copy(state: State) -> State:
    layers = [
        type(layer)(*(t.clone() for t in layer)) if hasattr(layer, "_fields") else layer
        for layer in state.layers
    ]
    return State(state.pos.clone(), layers)


def _usual(state: State) -> bool:
    """Return whether numbers are such that sums of them can be compared."""
    return all(float(t.abs().max().nan_to_num(1e9)) < 1e3 for t in _tensors(state)[1:] if len(t))


def _try(call: Any) -> Any:
    try:
        return call()
    except ValueError as error:
        return error


def _tensors(state: State) -> list[Tensor]:
    return [state.pos, *(t for layer in state.layers for t in layer)]


def _load(data: bytes) -> State:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.state"
        path.write_bytes(data)
        state = State.load(path)
        assert state.nbytes < 1 << 31, "a file of a few bytes took much memory"
        return state


def _changed(chance: random.Random, state: State, kind: str) -> tuple[State, str]:
    if kind == "pos" or not state.layers:
        pos, what = _other_pos(chance, state.pos)
        return State(pos, state.layers), what
    layers: list[Any] = list(state.layers)
    number = chance.randrange(len(layers))
    if kind == "layers":
        what = chance.choice(["one less", "one more", "none", "turned", "a tuple"])
        if what == "one less":
            layers.pop(number)
        elif what == "one more":
            layers.append(layers[number])
        elif what == "none":
            layers = []
        elif what == "turned":
            layers.reverse()
        else:
            layers[number] = tuple(layers[number])
        return State(state.pos, layers), f"layers: {what}"
    layer = layers[number]
    if not isinstance(layer, (RecurrentState, AttentionState)):
        return state, "nothing"
    name = chance.choice(layer._fields)
    t, what = _other_tensor(chance, getattr(layer, name))
    layers[number] = layer._replace(**{name: t})
    return State(state.pos, layers), f"{name}.{number}: {what}"


def _other_pos(chance: random.Random, pos: Tensor) -> tuple[Tensor, str]:
    kind = chance.choice(["value", "value", "int32", "float", "rows", "meta", "dimension", "order"])
    if pos.dim() != 1 or not len(pos) or pos.is_meta or pos.dtype != torch.int64:
        return pos, "pos as it was"
    if kind == "value":
        value, pos = chance.choice(POSITIONS), pos.clone()
        pos[chance.randrange(len(pos))] = value
        return pos, f"a pos of {value}"
    others = {
        "int32": lambda: pos.int(),
        "float": lambda: pos.double(),
        "rows": lambda: pos.repeat(chance.choice([2, 4096])),
        "meta": lambda: pos.to("meta"),
        "dimension": lambda: chance.choice([pos[:, None], pos[0]]),
        "order": lambda: torch.stack([pos, pos], 1)[:, 0],
    }
    return others[kind](), f"pos: {kind}"


def _other_tensor(chance: random.Random, t: Tensor) -> tuple[Tensor, str]:
    kind = chance.choice(["rows", "narrow", "wide", "type", "meta", "flat", "order", "one", "turn"])
    dim = chance.randrange(t.dim())
    others = {
        "rows": lambda: torch.cat([t, t]),
        "narrow": lambda: t.narrow(dim, 0, max(t.shape[dim] - 1, 0)),
        "wide": lambda: torch.cat([t, t], dim),
        "type": lambda: t.to(chance.choice([torch.float64, torch.float16, torch.int64])),
        "meta": lambda: t.to("meta"),
        "flat": lambda: t.flatten(),
        "order": lambda: torch.stack([t, t], dim + 1).select(dim + 1, 0),
        "one": lambda: t.flatten()[:1],
        "turn": lambda: t.transpose(0, dim),
    }
    return others[kind](), kind


def _other_tokens(chance: random.Random, tokens: Tensor) -> tuple[Tensor, str]:
    kind = chance.choice(
        ["value", "int32", "int8", "bool", "meta", "rows", "none", "order", "float"]
    )
    if not tokens.numel() or tokens.is_meta or tokens.dtype != torch.int64:
        return tokens, "tokens as they were"
    others = {
        "int32": lambda: tokens.int(),
        "int8": lambda: tokens.to(torch.int8),
        "bool": lambda: tokens.bool(),
        "meta": lambda: tokens.to("meta"),
        "rows": lambda: torch.cat([tokens, tokens]),
        "none": lambda: tokens[:, :0],
        "order": lambda: tokens.T.contiguous().T,
        "float": lambda: tokens.float(),
        "value": lambda: tokens.index_fill(
            chance.choice([0, 1]), torch.tensor([0]), chance.choice([-1, 89, 2**40, -(2**63)])
        ),
    }
    return others[kind](), f"tokens: {kind}"


def _damaged(chance: random.Random, state: State) -> tuple[bytes | None, str]:
    """Return a saved state in which something was changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.state"
        try:
            state.save(path)
        except ValueError:
            return None, "not saved"
        data = path.read_bytes()
    if chance.random() < 0.3:
        at = chance.randrange(len(data))
        length = chance.choice([1, 1, 8, 1000])
        new = bytes(chance.randrange(256) for _ in range(length))
        return data[:at] + new + data[at + length :], f"{length} bytes at {at}"
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    notes, names = header["__metadata__"], [name for name in header if name != "__metadata__"]
    name = chance.choice(names)
    what = chance.choice(["slots", "shape", "dtype", "name", "without", "metadata"])
    if what == "slots":
        notes["slots"] = chance.choice(["", "-1", "0", "1", "10" * 9, "9" * 30, "x", "16", "2000"])
    elif what == "metadata":
        notes.pop(chance.choice(list(notes)))
    elif what == "without":
        header.pop(name)
    elif what == "name":
        header[chance.choice(["lru.0", "k.0", "conv.9", "pos", "x"])] = header.pop(name)
    elif what == "shape":
        header[name]["shape"] = _as_many(chance, header[name]["shape"])
    else:
        header[name]["dtype"] = chance.choice(["F32", "I32", "I64", "BF16", "F64", "BOOL"])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest, f"{what} of {name}"


def _as_many(chance: random.Random, shape: list[int]) -> list[int]:
    """Return a shape, mostly of as many values."""
    return chance.choice([shape[::-1], [1, *shape], [*shape, 1], [0, 0, 1, 16], [2**40, 0], []])
