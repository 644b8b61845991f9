"""What each kernel is given to compute, for itself and for its equation alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from griffin import ops
from griffin.ops.rg_lru import Gate
from griffin.sampling import SamplingParams
from griffin.sampling.table import row_tensors

Draw = Callable[..., Tensor]
Given = dict[str, Any]


@dataclass(frozen=True)
class KernelCase:
    """A kernel: what it is given at a shape, and the results that are compared, by name.

    operands: from a function that draws random numbers of the type at hand. run: changes nothing
    that it is given.
    """

    operands: Callable[..., Given]
    run: Callable[[Given], dict[str, Tensor]]
    shapes: tuple[tuple[int, ...], ...]
    toy: tuple[tuple[int, ...], ...]


def _products(format: str | None) -> Callable[..., Given]:
    def operands(draw: Draw, rows: int, outputs: int, inputs: int) -> Given:
        weight = draw(outputs, inputs) / inputs**0.5
        matrix = weight if format is None else ops.pack(weight, format)
        norm, residual, x = draw(inputs), draw(rows, outputs), draw(rows, inputs)
        laid = ops.lay([matrix], [draw(outputs)])
        live = torch.full((1,), max(1, rows - 1), dtype=torch.int32, device=x.device)
        return {"x": x, "laid": laid, "norm": norm, "residual": residual, "live": live}

    return operands


def _product(given: Given) -> dict[str, Tensor]:
    x, laid, live = given["x"], given["laid"], given["live"]
    norm = {"norm": given["norm"], "eps": 1e-6}
    more = {"after": {"residual": given["residual"]}, "head": {"cap": 30.0}, "gated": {}}
    found: dict[str, Tensor] = {}
    for name, how in more.items():
        gated = name == "gated"
        if gated and laid.out_features % 2:
            continue
        y = ops.few_rows(x, laid, gated=gated, live=live, **norm, **how)
        found[name] = y[: max(1, len(x) - 1)]
    return found


def _look_up(given: Given) -> dict[str, Tensor]:
    laid, x = given["laid"], given["x"]
    ids = torch.arange(len(x), device=x.device) * 7 % laid.out_features
    return {"rows": ops.look_up_rows(ids, laid, 1.0, x.dtype)}


def _ring(draw: Draw, rows: int, steps: int, heads: int, head: int, slots: int) -> Given:
    qkv = draw(rows, steps, (heads + 2) * head)
    pos = torch.arange(rows, device=qkv.device) * (slots // 2 + 1)
    turns = ops.rope_turns(head // 2, 10_000.0).to(qkv.device)
    keys, values = (draw(rows, slots, 1, head) for _ in "kv")
    return {"qkv": qkv, "keys": keys, "values": values, "pos": pos, "turns": turns}


def _attention(given: Given) -> dict[str, Tensor]:
    keys, values = (given[name].clone() for name in ("keys", "values"))
    y = ops.ring_attention(given["qkv"], keys, values, given["pos"], given["turns"])
    return {"y": y, "keys": keys, "values": values}


def _prompt(draw: Draw, rows: int, steps: int, heads: int, head: int, slots: int) -> Given:
    q, k, v = (draw(rows, steps, n, head) for n in (heads, 1, 1))
    before = torch.arange(rows, device=q.device) * slots + slots // 2
    at = torch.arange(steps, device=q.device) + before[:, None]  # the last row's ends on the way
    at[-1, steps // 2 :] = torch.arange(steps - steps // 2, device=q.device)
    given = {"q": q, "k": k, "v": v, "at": at, "before": before, "seed": draw(*q.shape)}
    return given | {"keys": draw(rows, slots, 1, head), "values": draw(rows, slots, 1, head)}


def _local(given: Given) -> dict[str, Tensor]:
    names = "q", "k", "v", "keys", "values"
    window = ops.plan_window(given["at"], given["keys"].shape[1], given["before"])

    def call(own: Given) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v, keys, values = (own[name] for name in names)
        return ops.local_attention(q, k, v, window, (keys, values))

    with torch.no_grad():
        y, (keys, values) = call(given)
    own = given | {name: given[name].detach().clone().requires_grad_() for name in names}
    with torch.enable_grad():
        learned, _ = call(own)
        leaves = [own[name] for name in names]
        gradients = torch.autograd.grad(learned, leaves, given["seed"].to(learned.dtype))
    found = {f"d{name}": each for name, each in zip(names, gradients, strict=True)}
    return {"y": y, "keys": keys, "values": values} | found


def _unit(draw: Draw, rows: int, steps: int, blocks: int, size: int) -> Given:
    width = blocks * size
    x, gate, param = draw(rows, steps, width), draw(rows, width), draw(width) - 4
    conv, taps = draw(rows, 3, width), draw(width, 1, 4)
    weights = {name: draw(blocks, size, size) / size**0.5 for name in ("wi", "wr")}
    biases = {name: draw(blocks, size) for name in ("bi", "br")} | {"bias": draw(width)}
    # A document begins within, and one row at its first token.
    at = (torch.arange(steps, device=x.device) - steps // 2).clamp_min(0).repeat(rows, 1)
    lru, seed = draw(rows, width).float(), draw(rows, steps, width)
    given = {"x": x, "gate": gate, "param": param, "conv": conv, "taps": taps, "at": at}
    return given | weights | biases | {"lru": lru, "seed": seed, "a": seed.sigmoid()}


def _gates(given: Given) -> tuple[Gate, Gate]:
    return Gate(given["wi"], given["bi"]), Gate(given["wr"], given["br"])


def _step(given: Given) -> dict[str, Tensor]:
    conv, lru = given["conv"].clone(), given["lru"].clone()
    x, position = given["x"][:, 0].contiguous(), given["at"][:, -1].contiguous()
    weights = given["taps"], given["bias"], *_gates(given), given["param"]
    kept = torch.empty_like(conv), torch.empty_like(lru)
    y = ops.recurrent_step(x, given["gate"], *weights, position, conv, lru, None, kept)
    return {"y": y, "conv": conv, "lru": lru, "kept_conv": kept[0], "kept_lru": kept[1]}


def _convolution(given: Given) -> dict[str, Tensor]:
    rest = given["taps"], given["bias"], given["at"], given["conv"]
    y, left = ops.causal_conv(given["x"], *rest)
    return {"y": y, "left": left}


def _with_gradients(names: tuple[str, ...], given: Given, call: Any) -> dict[str, Tensor]:
    """Return h and the last one of a call, and the gradients of what is named."""
    own = given | {name: given[name].detach().clone().requires_grad_() for name in names}
    with torch.enable_grad():
        h, last = call(own)
        seeds = given["seed"].to(h.dtype), given["lru"].to(last.dtype)
        gradients = torch.autograd.grad([h, last], [own[name] for name in names], seeds)
    found = {f"d{name}": each for name, each in zip(names, gradients, strict=True)}
    return {"h": h.detach(), "last": last.detach()} | found


def _rg_lru(given: Given) -> dict[str, Tensor]:
    names = "x", "wi", "bi", "wr", "br", "param", "lru"
    return _with_gradients(
        names,
        given,
        lambda own: ops.rg_lru(own["x"], *_gates(own), own["param"], own["at"], own["lru"]),
    )


def _scan(given: Given) -> dict[str, Tensor]:
    return _with_gradients(
        ("x", "a", "lru"), given, lambda own: ops.linear_scan(own["x"], own["a"], own["lru"])
    )


def _slots(draw: Draw, rows: int, layers: int, width: int, slots: int) -> Given:
    keys, values = (draw(layers, rows + 1, slots, 1, width) for _ in "kv")
    pos = torch.arange(rows + 1, device=keys.device) * (slots - 1)
    return {"keys": keys, "values": values, "pos": pos}


def _keep(given: Given) -> dict[str, Tensor]:
    rings, pos, rows = (given["keys"], given["values"]), given["pos"].clone(), len(given["pos"]) - 1
    keys, values = (t.new_empty(len(t), rows, *t.shape[3:]) for t in rings)
    before = pos.new_empty(rows)
    ops.keep_before(rings, pos, (keys, values), before)
    return {"keys": keys, "values": values, "before": before, "pos": pos}


# How rows choose, by turns; every second one of each has a bias, a mask, counts or ends besides.
_WAYS: tuple[Given, ...] = (
    {},
    {"temperature": 0.0},
    {"top_k": 40, "frequency_penalty": 0.4},
    {"top_p": 0.9, "repetition_penalty": 1.3},
    {"min_p": 0.05, "temperature": 0.7},
    {"top_k": 500, "top_p": 0.95, "presence_penalty": 0.5},
)


def _choices(draw: Draw, rows: int, size: int) -> Given:
    logits, uniform = 4 * draw(rows, size), draw(rows).double().sigmoid()
    logits[rows // 2, size // 3] = torch.nan  # that row has a fault, and no other
    params = row_tensors([SamplingParams(**_WAYS[row % len(_WAYS)]) for row in range(rows)])
    kind, row = torch.arange(4, device=logits.device), torch.arange(rows, device=logits.device)
    has = (kind[:, None] + row) % 3 == 0
    given = {name: t.to(logits.device) for name, t in params.items()} | {
        "uniform": uniform,
        "places": torch.where(has, row, -1).to(torch.int32),
        "counts": (draw(rows, size) - 1).ceil().clamp_min(0).to(torch.int32),
        "bias": draw(rows, size),
        "masks": (draw(rows, -(-size // 32)).float() * 1e9).to(torch.int32),
        "live": torch.full((1,), max(1, rows - 1), dtype=torch.int32, device=logits.device),
    }
    return given | {"logits": logits}


def _drawn(given: Given) -> dict[str, Tensor]:
    own = {name: t.float() if t.is_floating_point() else t for name, t in given.items()}
    own |= {name: given[name].double() for name in ("uniform", "top_p", "min_p")}
    logits, live = own.pop("logits"), own.pop("live")
    own["counts"] = own["counts"].clone()
    drawn, rows = ops.draw_tokens(logits, ops.Draw(**own), live), max(1, len(logits) - 1)
    fault = drawn.fault[:rows]
    logprob = torch.where(fault == 0, drawn.logprob[:rows], 0)
    return {
        "token": drawn.token[:rows],
        "fault": fault,
        "logprob": logprob,
        "counts": own["counts"],
    }


_PRODUCTS = ((1, 5_120, 2_560), (37, 2_560, 7_680), (64, 15_360, 2_560))
_TOY_PRODUCTS = ((1, 33, 70), (18, 22, 130))
_PROMPTS = ((1, 200, 10, 256, 2_048), (2, 65, 4, 64, 40), (1, 7, 16, 256, 60))
_TOY_PROMPTS = ((2, 5, 2, 16, 6), (1, 18, 1, 8, 9), (1, 200, 1, 8, 33))
_UNITS = ((1, 100, 10, 256), (3, 63, 16, 256), (2, 200, 3, 80))
_TOY_UNITS = ((2, 5, 2, 20), (1, 66, 1, 17))
_RINGS = ((1, 1, 10, 256, 2_048), (37, 1, 10, 256, 2_048), (3, 8, 16, 256, 2_048))
_TOY_RINGS = ((3, 1, 2, 16, 20), (2, 3, 4, 16, 33))
CASES: dict[str, KernelCase] = {
    **{
        f"product of few rows, {format or 'plain'}": KernelCase(
            _products(format), _product, _PRODUCTS, _TOY_PRODUCTS
        )
        for format in (None, "int8", "int4")
    },
    "look-up of rows": KernelCase(_products(None), _look_up, _PRODUCTS, _TOY_PRODUCTS),
    "attention to the ring": KernelCase(_ring, _attention, _RINGS, _TOY_RINGS),
    "attention of a prompt": KernelCase(_prompt, _local, _PROMPTS, _TOY_PROMPTS),
    "recurrent step": KernelCase(_unit, _step, _UNITS, _TOY_UNITS),
    "keeping of what a step overwrites": KernelCase(
        _slots,
        _keep,
        ((1, 8, 256, 2_048), (37, 12, 256, 2_048), (256, 2, 256, 64)),
        ((1, 2, 8, 5), (3, 1, 20, 7)),
    ),
    "draw": KernelCase(
        _choices, _drawn, ((2, 256_000), (37, 256_000), (13, 33_333)), ((2, 40), (7, 2_500))
    ),
    "convolution": KernelCase(_unit, _convolution, _UNITS, _TOY_UNITS),
    "RG-LRU": KernelCase(_unit, _rg_lru, _UNITS, _TOY_UNITS),
    "linear scan": KernelCase(_unit, _scan, _UNITS, _TOY_UNITS),
}
