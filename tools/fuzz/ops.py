"""Calls of griffin.ops with operands that do not fit: refused, or what the reference gives.

A case is an op with operands that fit, of which up to two were changed: another type, device,
shape, order in memory, or value. Every implementation must refuse it, or all must give the same
numbers (and gradients); nothing may read or write outside its memory, which `make sanitize` sees.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from griffin import ops
from griffin.ops.rg_lru import Gate

# torch's own refusals, of types that a formula of its has no code for, are answers too.
REFUSALS = (ValueError, RuntimeError, TypeError, IndexError)
ALLOWED = REFUSALS
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}

# Have a loop as reference; the last has operands of its own.
ALONG_TIME = ("rg_lru", "causal_conv", "linear_scan", "recurrent_unit", "local_attention")
# Tables, and scales of packed weights, have no gradient.
_FIXED = ("cos", "sin", "scale")

Operands = dict[str, Any]
Run = Callable[[Operands], Any]


@dataclass(frozen=True)
class Case:
    """One call: an op, what it is given, whether gradients are asked for, and what was changed."""

    op: str
    operands: Operands
    trains: bool
    changes: tuple[str, ...]

    def __str__(self) -> str:
        given = {
            name: f"{tuple(t.shape)} {t.dtype} {t.device}" if isinstance(t, Tensor) else t
            for name, t in self.operands.items()
        }
        return f"{self.op}({given}), trains={self.trains}; {'; '.join(self.changes) or 'as it is'}"


def _gates(x: Operands) -> tuple[Gate, Gate]:
    return Gate(x["wi"], x["bi"]), Gate(x["wr"], x["br"])


def _packed(x: Operands) -> ops.Packed:
    return ops.Packed(x["data"], x["scale"], x["format"], x["out"], x["in"])


def _attention(x: Operands) -> Any:
    window = ops.plan_window(x["pos"], x["size"], x["before"])
    ring = None if x["ring_k"] is None else (x["ring_k"], x["ring_v"])
    y, ring = ops.local_attention(x["q"], x["k"], x["v"], window, ring)
    # What a pad reads means nothing.
    return y * (x["pos"] >= 0)[:, :, None, None], *ring


RUNS: dict[str, Run] = {
    "rg_lru": lambda x: ops.rg_lru(x["x"], *_gates(x), x["param"], x["pos"], x["h0"]),
    "causal_conv": lambda x: ops.causal_conv(x["x"], x["w"], x["b"], x["pos"], x["cache"]),
    "recurrent_unit": lambda x: ops.recurrent_unit(
        x["x"], x["w"], x["b"], *_gates(x), x["param"], x["pos"], x["cache"], x["h0"]
    ),
    "linear_scan": lambda x: ops.linear_scan(x["x"], x["a"], x["h0"]),
    "local_attention": _attention,
    "linear": lambda x: ops.linear(x["x"], x["w"], x["b"]),
    "rms_norm": lambda x: ops.rms_norm(x["x"], x["w"], 1e-6),
    "gated_gelu": lambda x: ops.gated_gelu(x["x"], x["y"]),
    "soft_cap": lambda x: ops.soft_cap(x["x"].clone(), 5.0),
    "rope": lambda x: ops.apply_rope(x["x"], (x["cos"], x["sin"])),
    "rope_table": lambda x: ops.rope_table(x["pos"], x["width"], 100.0, torch.float32),
    "packed_linear": lambda x: ops.packed_linear(x["x"], _packed(x), x["b"]),
    "look_up": lambda x: ops.look_up(_packed(x), x["ids"], 1.5, x["dtype"]),
}


def negated_view(t: Tensor) -> Tensor:
    """Return a view that is negated when it is read, not before."""
    return torch._neg_view(t)  # pyright: ignore[reportPrivateImportUsage]


def misplaced(t: Tensor) -> Tensor:
    """Return a copy that begins one byte behind where its type may."""
    memory = bytearray(t.nbytes + 64)
    place = torch.frombuffer(memory, dtype=torch.uint8)
    first = -place.data_ptr() % 16 + 1
    bytes_of = t.clone(memory_format=torch.contiguous_format).flatten().clone().view(torch.uint8)
    place[first : first + t.nbytes] = bytes_of
    return torch.frombuffer(memory, dtype=t.dtype, count=t.numel(), offset=first).view(t.shape)


def make(chance: random.Random) -> Case:
    """Draw a case."""
    op = chance.choice(list(RUNS))
    dtype = chance.choice([torch.float32, torch.float32, torch.bfloat16])
    operands = _fitting(op, chance, dtype)
    changes = []
    for _ in range(chance.choice([0, 1, 1, 1, 2])):
        name = chance.choice([name for name, t in operands.items() if t is not None])
        what, operands[name] = _changed(chance, operands[name])
        changes.append(f"{name}: {what}")
    return Case(op, operands, chance.random() < 0.2, tuple(changes))


def attempt(case: Case) -> None:
    """Run a case as chosen and by its formulas, and compare what comes of it."""
    chosen, expected = _outcome(case, None), _outcome(case, "eager")
    compare(case, chosen, expected)
    if case.op in ALONG_TIME:
        compare(case, chosen, _outcome(case, "reference"))
    if isinstance(chosen, Exception):
        raise chosen


def compare(case: Case, chosen: Any, expected: Any) -> None:
    """Raise AssertionError unless two implementations agree: both refuse, or both give the same."""
    refused = isinstance(chosen, Exception), isinstance(expected, Exception)
    assert refused[0] == refused[1], f"{case}: {chosen!r:.300}, by its formula {expected!r:.300}"
    if refused[0]:
        return
    for one, other in zip(chosen, expected, strict=True):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device), case
        if one.is_meta or not one.numel():
            continue
        # Sums of many values may come to little: gradients are held to the size of one.
        # int8 rounds activations by their row's largest.
        least = 20.0 if case.trains else 5.0 if case.op == "packed_linear" else 0.3
        scale = other.abs().max().double().nan_to_num(1.0).clamp(least, 1e6).item()
        most = scale * max(TOLERANCE.get(t.dtype, 0) for t in _floats(case, other))
        torch.testing.assert_close(
            one, other, rtol=0, atol=most, equal_nan=True, msg=lambda text: f"{case}: {text}"
        )


def _floats(case: Case, result: Tensor) -> list[Tensor]:
    given = [t for t in case.operands.values() if isinstance(t, Tensor)]
    return [result, *(t for t in given if t.is_floating_point())]


def _outcome(case: Case, name: str | None) -> Any:
    """Return an implementation's results, gradients behind them; or the error that refused."""
    operands = dict(case.operands)
    leaves = []
    if case.trains:
        for key, t in operands.items():
            if isinstance(t, Tensor) and t.is_floating_point() and key not in _FIXED:
                operands[key] = t.detach().requires_grad_()
                leaves.append(operands[key])
    try:
        if name is None:
            results = RUNS[case.op](operands)
        else:
            with ops.use(name):
                results = RUNS[case.op](operands)
        results = [results] if isinstance(results, Tensor) else list(results)
        # A gradient that does not depend on the values, which differ by their rounding.
        total = sum(
            (t.double() * torch.linspace(-1, 1, t.numel()).view(t.shape)).sum()
            for t in results
            if t.requires_grad
        )
        if isinstance(total, Tensor):
            found = torch.autograd.grad(total, leaves, allow_unused=True)
            results += [
                torch.zeros_like(leaf) if t is None else t
                for t, leaf in zip(found, leaves, strict=True)
            ]
        return [t.detach() for t in results]
    except REFUSALS as error:
        return error


def _draw(chance: random.Random, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(chance.getrandbits(32))
    return torch.randn(shape, generator=generator).to(dtype)


def _positions(chance: random.Random, rows: int, steps: int, before: list[int]) -> Tensor:
    out = []
    for row in range(rows):
        at, pads, found = before[row], chance.choice([0, 0, 0, 1, 2]), []
        for step in range(steps):
            if step < pads:
                found.append(-1)
                continue
            if chance.random() < 0.1:
                at = 0
            found.append(at)
            at += 1
        out.append(found)
    return torch.tensor(out, dtype=torch.int64).reshape(rows, steps)


def _fitting(op: str, chance: random.Random, dtype: torch.dtype) -> Operands:
    """Draw operands that fit."""
    rows, steps = chance.choice([1, 2, 3]), chance.choice([1, 1, 2, 7, 40])

    def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return _draw(chance, *shape, dtype=dtype)

    pos = _positions(chance, rows, steps, [chance.choice([0, 3])] * rows)
    if op in ALONG_TIME[:4]:
        blocks, size = chance.choice([1, 3]), chance.choice([1, 5, 16, 34])
        width, taps = blocks * size, chance.choice([1, 2, 4, 16])
        x, h0 = draw(rows, steps, width), chance.choice([None, draw(rows, width).float()])
        if op == "linear_scan":
            return {"x": x, "a": torch.sigmoid(draw(rows, steps, width)), "h0": h0}
        cache = chance.choice([None, draw(rows, taps - 1, width)])
        conv = {"w": draw(width, 1, taps), "b": draw(width), "pos": pos, "cache": cache}
        if op == "causal_conv":
            return {"x": x, **conv}
        gates = {
            name: draw(blocks, *[size] * dims)
            for name, dims in (("wi", 2), ("bi", 1), ("wr", 2), ("br", 1))
        }
        unit = {"x": x, **gates, "param": draw(width), "pos": pos, "h0": h0}
        return unit if op == "rg_lru" else unit | conv
    if op == "local_attention":
        heads, kv, width, size = chance.choice([(2, 1, 8, 5), (4, 2, 6, 16), (3, 1, 32, 130)])
        before = [chance.choice([0, 2, 200]) for _ in range(rows)]
        ring = chance.random() < 0.7
        return {
            "q": draw(rows, steps, heads, width),
            "k": draw(rows, steps, kv, width),
            "v": draw(rows, steps, kv, width),
            "pos": _positions(chance, rows, steps, before if ring else [0] * rows),
            "size": size,
            "before": torch.tensor(before) if ring else None,
            "ring_k": draw(rows, size, kv, width) if ring else None,
            "ring_v": draw(rows, size, kv, width) if ring else None,
        }
    if op == "rope":
        heads, width, half = chance.choice([(2, 8, 4), (1, 6, 2), (3, 5, 2)])
        wide = torch.promote_types(dtype, torch.float32)
        table = [draw(rows, steps, 1, half, dtype=wide) for _ in range(2)]
        return {"x": draw(rows, steps, heads, width), "cos": table[0], "sin": table[1]}
    if op == "rope_table":
        return {"pos": pos, "width": chance.choice([0, 2, 6])}
    width = chance.choice([1, 3, 48, 65])
    if op in ("packed_linear", "look_up"):
        out = chance.choice([1, 16, 33])
        packed = ops.pack(draw(out, width).float(), chance.choice(["bf16", "int8", "int4"]))
        parts: Operands = {
            "data": packed.data,
            "scale": packed.scale,
            "format": packed.format,
            "out": out,
            "in": width,
        }
        if op == "packed_linear":
            return {"x": draw(rows, steps, width), "b": chance.choice([None, draw(out)]), **parts}
        ids = torch.tensor([chance.randrange(out) for _ in range(steps)])
        return {"ids": ids, "dtype": dtype, **parts}
    if op == "linear":
        out = chance.choice([1, 7, 40])
        bias = chance.choice([None, draw(out)])
        return {"x": draw(rows, steps, width), "w": draw(out, width), "b": bias}
    x = draw(rows, steps, width)
    others = {"rms_norm": {"w": draw(width)}, "gated_gelu": {"y": draw(rows, steps, width)}}
    return {"x": x, **others.get(op, {})}


_TYPES = (
    *(torch.int32, torch.int64, torch.int8, torch.bool, torch.float16, torch.float64),
    *(torch.bfloat16, torch.float32),
)
_EXTREMES = (-1, -(2**63), 2**63 - 2, 2**53, 2**31, 5, 10**9)


def _changed(chance: random.Random, value: Any) -> tuple[str, Any]:
    """Return what was done, and the operand after it."""
    if not isinstance(value, Tensor):
        if isinstance(value, int):
            value = chance.choice([0, 1, value + 1, value - 1, value * 2, 16])
        return f"{value}", value
    kind = chance.choice(
        ["type", "device", "shape", "shape", "shape", "order", "value", "negated", "place"]
    )
    if kind == "type":
        dtype = chance.choice(_TYPES)
        return f"as {dtype}", value.to(dtype)
    if kind == "device":
        return "on meta", value.to("meta")
    if kind == "order" and value.dim():
        dim = chance.randrange(value.dim())
        return f"every other of {dim}", torch.stack([value, value], dim + 1).select(dim + 1, 0)
    if kind == "place" and value.is_cpu and value.numel():
        return "one byte further", misplaced(value)
    if kind == "negated" and value.is_floating_point():
        return "negated when read", negated_view(value)
    if kind == "value" and value.numel() and value.dtype == torch.int64 and value.is_cpu:
        at, new = chance.randrange(value.numel()), chance.choice(_EXTREMES)
        flat = value.flatten().index_fill(0, torch.tensor([at]), new)
        return f"{new} at {at}", flat.view(value.shape)
    return _reshaped(chance, value)


def _reshaped(chance: random.Random, value: Tensor) -> tuple[str, Tensor]:
    if not value.dim() or chance.random() < 0.2:
        return "one dimension more", value[None]
    dim = chance.randrange(value.dim())
    size, kind = value.shape[dim], chance.choice(["one", "none", "more", "less", "without", "last"])
    if kind == "without" or size == 0:
        return f"without dimension {dim}", value.select(dim, 0) if size else value.flatten()
    if kind == "more":
        return f"{2 * size} along {dim}", torch.cat([value, value], dim)
    if kind == "last":
        return "one value", value.flatten()[:1]
    count = {"one": 1, "none": 0, "less": size - 1}[kind]
    return f"{count} along {dim}", value.narrow(dim, 0, count)
