"""Operands that do not fit an op: refused by name, or what the reference gives; never read past."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops import kernels, native
from griffin.ops.rg_lru import Gate
from tools.fuzz import ops as fuzz

needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
B, T, G, I, W, V = 2, 5, 3, 4, 4, 40  # noqa: E741
E = G * I
IMPLEMENTATIONS = ["eager", "reference", *(["native"] if native.built() else [])]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def positions(dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor([[-1, 0, 1, 2, 3], [7, 8, 0, 1, 2]], dtype=dtype)


def rg_lru(**changes: Any) -> Any:
    given = {
        "x": draw(B, T, E),
        "wi": draw(G, I, I),
        "bi": draw(G, I),
        "wr": draw(G, I, I, seed=1),
        "br": draw(G, I, seed=1),
        "param": draw(E),
        "pos": positions(),
        "h0": draw(B, E),
    } | changes
    gates = Gate(given["wi"], given["bi"]), Gate(given["wr"], given["br"])
    return ops.rg_lru(given["x"], *gates, given["param"], given["pos"], given["h0"])


def causal_conv(**changes: Any) -> Any:
    given = {
        "x": draw(B, T, E),
        "w": draw(E, 1, W),
        "b": draw(E),
        "pos": positions(),
        "cache": draw(B, W - 1, E),
    } | changes
    return ops.causal_conv(*given.values())


def recurrent_unit(**changes: Any) -> Any:
    given = {
        "x": draw(B, T, E),
        "w": draw(E, 1, W),
        "b": draw(E),
        "wi": draw(G, I, I),
        "bi": draw(G, I),
        "wr": draw(G, I, I, seed=1),
        "br": draw(G, I, seed=1),
        "param": draw(E),
        "pos": positions(),
        "cache": draw(B, W - 1, E),
        "h0": draw(B, E),
    } | changes
    gates = Gate(given["wi"], given["bi"]), Gate(given["wr"], given["br"])
    x, taps, bias = given["x"], given["w"], given["b"]
    state = given["cache"], given["h0"]
    return ops.recurrent_unit(x, taps, bias, *gates, given["param"], given["pos"], *state)


def attention(**changes: Any) -> Any:
    given = {
        "q": draw(B, T, 4, 8),
        "k": draw(B, T, 2, 8),
        "v": draw(B, T, 2, 8, seed=1),
        "pos": positions(),
        "size": 6,
        "before": torch.tensor([0, 7]),
        "ring_k": draw(B, 6, 2, 8),
        "ring_v": draw(B, 6, 2, 8, seed=1),
    } | changes
    window = ops.plan_window(given["pos"], given["size"], given["before"])
    ring = None if given["ring_k"] is None else (given["ring_k"], given["ring_v"])
    return ops.local_attention(given["q"], given["k"], given["v"], window, ring)


def look_up(ids: Tensor, **changes: Any) -> Tensor:
    packed = ops.pack(draw(V, 48), changes.pop("format", "int8"))
    return ops.look_up(packed._replace(**changes), ids, 2.0, torch.float32)


def packed_linear(x: Tensor, bias: Tensor | None = None, **changes: Any) -> Tensor:
    return ops.packed_linear(x, ops.pack(draw(V, 48), "int8")._replace(**changes), bias)


REFUSED: dict[str, Callable[[], Any]] = {
    "rg_lru, h0 of one row": lambda: rg_lru(h0=draw(1, E)),
    "rg_lru, a short h0": lambda: rg_lru(h0=draw(B, E - 1)),
    "rg_lru, h0 on meta": lambda: rg_lru(h0=draw(B, E).to("meta")),
    "rg_lru, another recurrence gate": lambda: rg_lru(wr=draw(G, I, I - 1)),
    "rg_lru, one gate's bias": lambda: rg_lru(br=draw(1)),
    "rg_lru, gates of another width": lambda: rg_lru(wi=draw(G, I, I + 1)),
    "rg_lru, a gate on meta": lambda: rg_lru(wi=draw(G, I, I).to("meta")),
    "rg_lru, positions on meta": lambda: rg_lru(pos=positions().to("meta")),
    "rg_lru, positions with a fraction": lambda: rg_lru(pos=positions().double()),
    "rg_lru, pads behind a token": lambda: rg_lru(pos=positions().flip(1) - 1),
    "rg_lru, no token": lambda: rg_lru(x=draw(B, 0, E), pos=positions()[:, :0]),
    "causal_conv, no token": lambda: causal_conv(x=draw(B, 0, E), pos=positions()[:, :0]),
    "causal_conv, a bias on meta": lambda: causal_conv(b=draw(E).to("meta")),
    "causal_conv, a cache of one row": lambda: causal_conv(cache=draw(1, W - 1, E)),
    "causal_conv, no taps": lambda: causal_conv(w=draw(E, 1, 0)),
    "recurrent_unit, no token": lambda: recurrent_unit(x=draw(B, 0, E), pos=positions()[:, :0]),
    "recurrent_unit, another gate": lambda: recurrent_unit(wr=draw(G, I, I - 1)),
    "recurrent_unit, a bias on meta": lambda: recurrent_unit(b=draw(E).to("meta")),
    "recurrent_unit, a cache of one row": lambda: recurrent_unit(cache=draw(1, W - 1, E)),
    "recurrent_unit, h0 of one row": lambda: recurrent_unit(h0=draw(1, E)),
    "recurrent_unit, pads behind a token": lambda: recurrent_unit(pos=positions().flip(1) - 1),
    "linear_scan, a decay on meta": lambda: ops.linear_scan(
        draw(B, T, E), draw(B, T, E).to("meta")
    ),
    "linear_scan, h0 on meta": lambda: ops.linear_scan(
        draw(B, T, E), draw(B, T, E), draw(B, E).to("meta")
    ),
    "attention, values of another ring": lambda: attention(ring_v=draw(B, 5, 2, 8)),
    "attention, a ring on meta": lambda: attention(ring_k=draw(B, 6, 2, 8).to("meta")),
    "attention, no query heads": lambda: attention(q=draw(B, T, 0, 8)),
    "attention, no key heads": lambda: attention(k=draw(B, T, 0, 8), v=draw(B, T, 0, 8)),
    "attention, no token": lambda: attention(q=draw(B, 0, 4, 8), k=draw(B, 0, 2, 8)),
    "attention, a document without its ring": lambda: attention(
        before=None, ring_k=None, ring_v=None
    ),
    "attention, a ring of another place": lambda: attention(before=torch.tensor([0, 6])),
    "attention, a place before the beginning": lambda: attention(before=torch.tensor([-7, 7])),
    "attention, positions that jump": lambda: attention(pos=positions() * 2),
    "attention, the end of int64": lambda: attention(
        pos=torch.full((B, T), 2**63 - 2), before=torch.tensor([2**63 - 2] * B)
    ),
    "attention, beyond float64": lambda: attention(
        pos=torch.arange(T).expand(B, T) + 2**53, before=torch.tensor([2**53] * B)
    ),
    "attention, whole keys": lambda: attention(k=draw(B, T, 2, 8).long()),
    "rms_norm, one value": lambda: ops.rms_norm(draw(3, 48), draw(1), 1e-6),
    "rms_norm, a weight on meta": lambda: ops.rms_norm(draw(3, 48), draw(48).to("meta"), 1e-6),
    "rms_norm, a number": lambda: ops.rms_norm(torch.tensor(1.0), draw(1), 1e-6),
    "gated_gelu on two devices": lambda: ops.gated_gelu(draw(3), draw(3).to("meta")),
    "linear on two devices": lambda: ops.linear(draw(3, 4), draw(5, 4).to("meta")),
    "rope, a short table": lambda: ops.apply_rope(draw(B, T, 2, 8), (draw(B, 3, 1, 2),) * 2),
    "rope, a table of more rows": lambda: ops.apply_rope(
        draw(B, T, 2, 8), (draw(B + 1, T, 1, 2),) * 2
    ),
    "rope, sines of another shape": lambda: ops.apply_rope(
        draw(B, T, 2, 8), (draw(B, T, 1, 2), draw(B, 2, 1, 2))
    ),
    "rope, a table wider than heads": lambda: ops.apply_rope(
        draw(B, T, 2, 8), (draw(B, T, 1, 5),) * 2
    ),
    "rope, a table on meta": lambda: ops.apply_rope(
        draw(B, T, 2, 8), (draw(B, T, 1, 2).to("meta"),) * 2
    ),
    "rope_table of fractions": lambda: ops.rope_table(draw(B, T), 8, 100.0, torch.float32),
    "look_up beyond the end": lambda: look_up(torch.tensor([0, V])),
    "look_up before the beginning": lambda: look_up(torch.tensor([-1])),
    "look_up of the largest": lambda: look_up(torch.tensor([2**63 - 1])),
    "look_up of fractions": lambda: look_up(torch.tensor([0.5])),
    "look_up on meta": lambda: look_up(torch.tensor([1]).to("meta")),
    "look_up of other bytes": lambda: look_up(torch.tensor([1]), out_features=V + 16),
    "packed_linear on meta": lambda: packed_linear(draw(2, 48).to("meta")),
    "packed_linear, a bias on meta": lambda: packed_linear(draw(2, 48), draw(V).to("meta")),
    "packed_linear of other bytes": lambda: packed_linear(draw(2, 48), out_features=V + 16),
    "packed_linear, few scales": lambda: packed_linear(draw(2, 48), scale=torch.ones(V)),
    "packed_linear, no scales": lambda: packed_linear(draw(2, 48), scale=None),
    "packed_linear, scales of float64": lambda: packed_linear(
        draw(2, 48), scale=torch.ones(48, dtype=torch.float64)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_every_implementation(name: str) -> None:
    for implementation in IMPLEMENTATIONS:
        with ops.use(implementation), pytest.raises(ValueError):
            REFUSED[name]()
    with pytest.raises(ValueError):
        REFUSED[name]()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8])
@pytest.mark.parametrize("trains", [False, True])
def test_short_positions_give_the_numbers_of_int64(dtype: torch.dtype, trains: bool) -> None:
    def run(kind: torch.dtype, call: Callable[..., Any]) -> list[Tensor]:
        x = draw(B, T, E).requires_grad_(trains)
        results = list(call(x=x, pos=positions(kind)))
        if trains:
            results += torch.autograd.grad([r.sum() for r in results], [x])
        return [r.detach() for r in results]

    for call in (rg_lru, causal_conv, recurrent_unit):
        for one, other in zip(run(dtype, call), run(torch.int64, call), strict=True):
            assert torch.equal(one, other)
    few = attention(pos=positions(dtype), before=torch.tensor([0, 7], dtype=dtype))
    assert torch.equal(few[0], attention()[0])
    for one, other in zip(
        ops.rope_table(positions(dtype), 8, 100.0, torch.float32),
        ops.rope_table(positions(), 8, 100.0, torch.float32),
        strict=True,
    ):
        assert torch.equal(one, other)
    ids = torch.tensor([3, 0, 7])
    assert torch.equal(look_up(ids.to(dtype)), look_up(ids))


def test_angles_before_the_beginning_are_those_of_the_formula() -> None:
    table = ops.rope_table(torch.tensor([[-3, 5]]), 8, 100.0, torch.float32)
    with ops.use("eager"):
        expected = ops.rope_table(torch.tensor([[-3, 5]]), 8, 100.0, torch.float32)
    for one, other in zip(table, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_table_of_one_token_turns_all() -> None:
    x, table = draw(B, T, 2, 8), (draw(1, 1, 1, 2), draw(1, 1, 1, 2, seed=1))
    with ops.use("eager"):
        expected = ops.apply_rope(x, table)
    torch.testing.assert_close(ops.apply_rope(x, table), expected, rtol=0, atol=1e-6)


def test_a_single_row_of_inputs_has_a_gradient() -> None:
    packed, bias = ops.pack(draw(V, 48), "bf16"), draw(V)
    for name in IMPLEMENTATIONS:
        leaf = bias.clone().requires_grad_()
        with ops.use(name):
            ops.packed_linear(draw(48), packed, leaf).sum().backward()
        assert torch.equal(leaf.grad, torch.ones(V))


def test_no_rows_are_no_rows() -> None:
    for name in IMPLEMENTATIONS:
        with ops.use(name):
            none = torch.zeros(0, T, dtype=torch.int64)
            h, last = rg_lru(x=draw(0, T, E), pos=none, h0=None)
            y, left = causal_conv(x=draw(0, T, E), pos=none, cache=None)
            assert (h.shape, last.shape, y.shape, left.shape) == (
                *((0, T, E), (0, E), (0, T, E), (0, W - 1, E)),
            )


@needs_native
def test_every_function_of_the_module_is_described() -> None:
    """Whoever adds a kernel says in griffin/ops/kernels.py what crosses."""
    known = {"instruction_set", "instruction_sets", "use_instruction_set", "read_seconds"}
    known |= {"compiled", "of_machine"}
    functions = {
        name
        for name, value in vars(native.module()).items()
        if callable(value) and not isinstance(value, type) and not name.startswith("_")
    }
    assert functions - known == set(kernels._KERNELS)


SIZES = {
    **{name: (2, 3, 4) for name in ("scan", "scan_gradient", "unit_of_gates", "unit_gradient")},
    "unit": (2, 3, 4, 2),
    "convolution": (2, 3, 4, 2),
    **{
        name: (2, 3, 4, 2, 8, 5)
        for name in ("attention", "attention_for_gradient", "attention_gradient")
    },
    "recurrence": (2, 300, 4, 2, 4),
    "recurrence_gradient": (2, 300, 4, 2, 4, 2),
    "norm": (3, 4),
    "gated": (5,),
    "add_norm": (3, 4),
    "norm_gradient": (70, 4),
    "gated_gradient": (5,),
    "softmax": (3, 4),
    "rope": (3, 2, 8, 2),
    "rope_table": (3, 4),
    "soft_cap": (5,),
    "linear": (2, 3, 4),
    "packed_linear": (2, 3, 4),
    "screened_linear": (2, 3, 4),
    "look_up": (3, 4),
    "pack_pairs": (3, 4),
}


@needs_native
@pytest.mark.parametrize("name", kernels._KERNELS)
def test_no_kernel_has_a_tensor_that_is_not_what_it_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Module:
        calls = 0

        def __getattr__(self, kernel: str) -> Callable[..., None]:
            def run(*_: Any) -> None:
                Module.calls += 1

            return run

    monkeypatch.setattr(native, "module", Module)
    kernels._described.cache_clear()
    kernel, sizes = kernels._KERNELS[name], SIZES[name]
    types = kernels._TYPES[torch.float32]
    good = [
        torch.zeros(count, dtype=types[kind][0])
        for kind, count in zip(kernel.kinds, kernel.counts(*sizes), strict=True)
    ]
    kernels.call(name, torch.float32, sizes, good)
    assert Module.calls == 1
    for place, (t, kind) in enumerate(zip(good, kernel.kinds, strict=True)):
        other = torch.int32 if t.dtype != torch.int32 else torch.int64
        wrong = [
            t.to("meta"),
            t.to(other),
            t[:-1],
            torch.cat([t, t]),
        ]
        # Copied where it is read, refused where it would be written.
        elsewhere = [
            torch.stack([t, t], 1)[:, 0],
            *([fuzz.negated_view(t)] if t.is_floating_point() else []),
            *([fuzz.misplaced(t)] if t.itemsize > 1 else []),
        ]
        wrong += elsewhere if kernel.results[place] else []
        given = torch.zeros(t.numel(), dtype=t.dtype)
        given.untyped_storage().resize_(0)
        for bad in (*wrong, given, *([] if kind.endswith("?") else [None])):
            tensors = [*good[:place], bad, *good[place + 1 :]]
            with pytest.raises(ValueError, match=f"native {name} takes {kernel.names[place]} as"):
                kernels.call(name, torch.float32, sizes, tensors)
        before = Module.calls
        for good_too in () if kernel.results[place] else elsewhere:
            kernels.call(name, torch.float32, sizes, [*good[:place], good_too, *good[place + 1 :]])
        copied = 0 if kernel.results[place] else len(elsewhere)
        assert Module.calls == before + copied
    with pytest.raises(ValueError, match="float32, bfloat16 or float64"):
        kernels.call(name, torch.float16, sizes, good)
    kernels._described.cache_clear()


@needs_native
def test_sizes_ids_and_positions_are_looked_at_in_the_module() -> None:
    """Whoever calls the operators by hand, or a plan that says another thing, is refused, too."""
    griffin = torch.ops.griffin
    x, h0, pos = draw(1, 2, 6), draw(1, 6), torch.tensor([[5, 6]])
    weight, bias = draw(0, 3, 3), draw(2, 3)
    q, ring = draw(1, 2, 2, 4), draw(1, 3, 1, 4)
    wide = torch.zeros(1, 2, 4097)
    gate = torch.zeros(1, 4097, 4097), torch.zeros(1, 4097)
    for call in (
        lambda: griffin.rg_lru(x, weight, bias, weight, bias, draw(6), pos, h0),
        lambda: griffin.rg_lru(wide, *gate, *gate, wide[0, 0], pos, wide[:, 0]),
        lambda: griffin.causal_conv(x, draw(6, 1, 17), draw(6), pos, draw(1, 16, 6)),
        lambda: griffin.causal_conv(x[:, :0], draw(6, 1, 2), draw(6), pos[:, :0], draw(1, 1, 6)),
        lambda: griffin.window_attention(q, q[:, :, :1], q[:, :, :1], None, None, pos, 3),
        lambda: griffin.window_attention(q, q[:, :, :1], q[:, :, :1], ring, ring, pos * 2, 3),
        lambda: griffin.window_attention(q, q[:, :, :1], q[:, :, :1], ring, ring, pos + 2**53, 3),
        lambda: griffin.window_attention(q, q[:, :, :1], q[:, :, :1], ring, ring, pos.int(), 3),
        lambda: griffin.window_attention(q, q[:, :, :0], q[:, :, :0], ring, ring, pos, 3),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            call()


@pytest.mark.parametrize("seed", range(4))
def test_calls_drawn_at_random(seed: int) -> None:
    """A few of what `python -m tools.fuzz ops` draws."""
    refused = 0
    for number in range(40):
        case = fuzz.make(random.Random(f"test {seed} {number}"))
        try:
            fuzz.attempt(case)
        except fuzz.ALLOWED:
            refused += 1
    assert 5 < refused < 35
