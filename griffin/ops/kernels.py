"""What crosses into C++: the tensors of every kernel, looked at in one place before it has them.

A kernel has addresses and sizes and believes them, so a tensor of another type, size, device or
order of memory would be read past its end. Sizes a kernel has no room for, ids and positions out of
range are refused in C++ (native/face/), where looking costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from griffin.ops import native

_Types = tuple[torch.dtype | None, ...]
_Operand = tuple[_Types, int, bool]
_PRODUCTS = (torch.float32, torch.bfloat16)


def _types(dtype: torch.dtype) -> dict[str, _Types]:
    """Return what each kind of tensor is in a call of `dtype`; with "?" it may be left out."""
    wide = torch.promote_types(dtype, torch.float32)
    kinds: dict[str, _Types] = {
        "x": (dtype,),
        "wide": (wide,),
        "product": _PRODUCTS,
        "half": (torch.bfloat16,),
        "int64": (torch.int64,),
    }
    kinds |= {"double": (torch.float64,), "bytes": (torch.uint8,)}
    return kinds | {f"{kind}?": (*types, None) for kind, types in kinds.items()}


_TYPES = {dtype: _types(dtype) for dtype in native.TYPES}


class _Kernel(NamedTuple):
    names: tuple[str, ...]
    results: tuple[bool, ...]
    kinds: tuple[str, ...]
    counts: Callable[..., tuple[int, ...]]


def _kernel(tensors: str, counts: Callable[..., tuple[int, ...]]) -> _Kernel:
    """Describe a kernel: its tensors in order, each with its kind behind a colon ("x" without).

    counts: from the sizes of a call, how many values each tensor has. Names of results end in "!".
    """
    names, _, kinds = zip(*(word.partition(":") for word in tensors.split()), strict=True)
    return _Kernel(
        tuple(name.rstrip("!") for name in names),
        tuple(name.endswith("!") for name in names),
        tuple(kind or "x" for kind in kinds),
        counts,
    )


def _scan(rows: int, steps: int, width: int) -> tuple[int, ...]:
    n, row = rows * steps * width, rows * width
    return n, n, row, n, row, n


def _scan_gradient(rows: int, steps: int, width: int) -> tuple[int, ...]:
    n, row = rows * steps * width, rows * width
    return n, n, n, row, row, n, n, row


def _unit(rows: int, steps: int, width: int, blocks: int) -> tuple[int, ...]:
    n, row = rows * steps * width, rows * width
    gate = width * (width // max(blocks, 1))
    return n, gate, width, gate, width, width, rows * steps, row, n, row


def _unit_of_gates(rows: int, steps: int, width: int) -> tuple[int, ...]:
    n, row = rows * steps * width, rows * width
    return n, n, n, width, rows * steps, row, n, row, n


def _unit_gradient(rows: int, steps: int, width: int) -> tuple[int, ...]:
    n, row = rows * steps * width, rows * width
    return n, n, n, n, n, width, rows * steps, row, row, n, n, n, row, row


def _convolution(rows: int, steps: int, width: int, taps: int) -> tuple[int, ...]:
    n, cache = rows * steps * width, rows * (taps - 1) * width
    return n, width * taps, width, rows * steps, cache, n, cache


def _recurrence(rows: int, steps: int, width: int, blocks: int, taps: int) -> tuple[int, ...]:
    n, row, cache = rows * steps * width, rows * width, rows * (taps - 1) * width
    gate, kept = width * (width // max(blocks, 1)), (steps - 1) // native.KEPT_STEPS * row
    weights = width * taps, width, gate, width, gate, width, width
    return n, *weights, rows * steps, cache, row, n, cache, row, row, kept


def _recurrence_gradient(
    rows: int, steps: int, width: int, blocks: int, taps: int, groups: int
) -> tuple[int, ...]:
    *inputs, n, cache, row, _, kept = _recurrence(rows, steps, width, blocks, taps)
    sums = groups * width * (2 * (width // max(blocks, 1)) + taps + 4)
    return *inputs, kept, n, cache, row, row, n, cache, row, sums


def _attention(
    rows: int, steps: int, heads: int, kv_heads: int, width: int, slots: int
) -> tuple[int, ...]:
    q, k, ring = (rows * n * width for n in (steps * heads, steps * kv_heads, slots * kv_heads))
    return q, k, k, ring, ring, rows * steps, q


def _attention_for_gradient(
    rows: int, steps: int, heads: int, kv_heads: int, width: int, slots: int
) -> tuple[int, ...]:
    forward = _attention(rows, steps, heads, kv_heads, width, slots)
    return *forward, rows * steps * heads


def _attention_gradient(
    rows: int, steps: int, heads: int, kv_heads: int, width: int, slots: int
) -> tuple[int, ...]:
    forward = _attention_for_gradient(rows, steps, heads, kv_heads, width, slots)
    q, k, v, ring_k, ring_v, *_ = forward
    return *forward, q, q, k, v, ring_k, ring_v


def _norm_gradient(rows: int, width: int) -> tuple[int, ...]:
    n = rows * width
    return n, width, n, n, n, n, n, -(-rows // 64) * width, width


def _pack_pairs(rows: int, inputs: int) -> tuple[int, ...]:
    return rows * inputs, -(-rows // 16) * -(-inputs // 2) * 64


_UNIT = (
    "x conv_weight:wide conv_bias:wide input_weight:wide input_bias:wide recurrence_weight:wide"
    " recurrence_bias:wide recurrent_param:wide segment_pos:int64 cache h0:wide"
)
# In the order of native/face/.
_KERNELS = {
    "scan": _kernel("x a h0:wide h! last!:wide every!:wide?", _scan),
    "scan_gradient": _kernel(
        "a dh every:wide h0:wide dlast:wide dx! da! dh0!:wide", _scan_gradient
    ),
    "unit": _kernel(
        "x input_weight input_bias recurrence_weight recurrence_bias recurrent_param"
        " segment_pos:int64 h0:wide h! last!:wide",
        _unit,
    ),
    "unit_of_gates": _kernel(
        "x gate_i:wide gate_r:wide recurrent_param:wide segment_pos:int64 h0:wide h!"
        " last!:wide every!:wide",
        _unit_of_gates,
    ),
    "unit_gradient": _kernel(
        "x dh gate_i:wide gate_r:wide every:wide recurrent_param:wide segment_pos:int64 h0:wide"
        " dlast:wide dx!:wide dgate_i!:wide dgate_r!:wide drate!:wide dh0!:wide",
        _unit_gradient,
    ),
    "convolution": _kernel("x weight bias segment_pos:int64 cache y! left!", _convolution),
    "recurrence": _kernel(f"{_UNIT} h! left! last!:wide decay!:wide kept!:wide", _recurrence),
    "recurrence_gradient": _kernel(
        f"{_UNIT} kept:wide dh:x? dleft:x? dlast:wide? ddecay:wide? dx! dcache! dh0!:wide"
        " dweights!:wide",
        _recurrence_gradient,
    ),
    "attention": _kernel("q k v ring_k:x? ring_v:x? position:int64 y!", _attention),
    "attention_for_gradient": _kernel(
        "q k v ring_k:x? ring_v:x? position:int64 y! lse!:wide", _attention_for_gradient
    ),
    "attention_gradient": _kernel(
        "q k v ring_k:x? ring_v:x? position:int64 y lse:wide dy dq! dk!:wide dv!:wide"
        " dring_k!:wide? dring_v!:wide?",
        _attention_gradient,
    ),
    "norm": _kernel("x weight y!", lambda rows, width: (rows * width, width, rows * width)),
    "add_norm": _kernel(
        "x add:x? half_add:half? weight sum!:x? y!:x? half_y!:half?",
        lambda rows, width: (rows * width,) * 3 + (width,) + (rows * width,) * 3,
    ),
    "norm_gradient": _kernel(
        "x weight dy:x? half_dy:half? dsum:x? dx! half_dx!:half? blocks!:wide dweight!:wide",
        _norm_gradient,
    ),
    "gated": _kernel("gate x y!", lambda count: (count, count, count)),
    "gated_gradient": _kernel("gate x dy dgate! dx! y!:x?", lambda count: (count,) * 6),
    "softmax": _kernel(
        "logits! column:int64 total! right!",
        lambda rows, columns: (rows * columns, rows, rows, rows),
    ),
    "rope": _kernel(
        "x! cos:wide sin:wide",
        lambda tokens, heads, width, half: (tokens * heads * width, tokens * half, tokens * half),
    ),
    "rope_table": _kernel(
        "positions:int64 frequencies:double cos! sin!",
        lambda tokens, half: (tokens, half, tokens * half, tokens * half),
    ),
    "soft_cap": _kernel("logits!", lambda count: (count,)),
    "linear": _kernel(
        "x weight bias:x? y!", lambda rows, n, out: (rows * n, out * n, out, rows * out)
    ),
    "packed_linear": _kernel("x y!:product", lambda rows, n, out: (rows * n, rows * out)),
    "screened_linear": _kernel("x y!:wide", lambda rows, n, out: (rows * n, rows * out)),
    "look_up": _kernel("ids:int64 y!", lambda count, width: (count, count * width)),
    "pack_pairs": _kernel("weight data!:bytes", _pack_pairs),
}


def call(
    name: str,
    dtype: torch.dtype,
    sizes: Sequence[int],
    tensors: Sequence[Tensor | None],
    *others: Any,
) -> None:
    """Run a kernel of the native module.

    dtype:   of the call; "wide" is float32, float64 for float64.
    sizes:   as the kernel takes them.
    tensors: inputs and results in the kernel's order. Inputs are copied where they do not lie as
             kernels read them (`lies`); results, which hold what comes out, must.
    others:  what else it takes.
    Raises ValueError for a tensor that is not what the sizes say, before anything is read.
    """
    run, number, counts, tensors_of = _described(name, dtype)
    addresses, copies = [], []
    for (types, size, result), count, t in zip(tensors_of, counts(*sizes), tensors, strict=True):
        if t is None and None in types:
            addresses.append(0)
            continue
        if t is None or t.dtype not in types or t.numel() != count or not t.is_cpu:
            raise ValueError(_refusal(name, len(addresses), types, count, t))
        address = t.data_ptr()
        if address % size or not t.is_contiguous() or t.is_neg():
            if result:
                raise ValueError(_refusal(name, len(addresses), types, count, t))
            copies.append(t := t.clone(memory_format=torch.contiguous_format))
            address = t.data_ptr()
        if count and not address:
            raise ValueError(_refusal(name, len(addresses), types, count, t))
        addresses.append(address)
    run(number, *sizes, *addresses, *others, torch.get_num_threads())


@cache
def _described(name: str, dtype: torch.dtype) -> tuple[Any, int, Any, tuple[_Operand, ...]]:
    """Return a kernel, the number of its type, its counts, and of each tensor the types it may have
    (None where it may be left out), the bytes of a value and whether it is a result."""
    if dtype not in _TYPES:
        raise ValueError(
            f"native {name} takes float32, bfloat16 or float64 on the CPU, not {dtype}"
        )
    kernel = _KERNELS[name]
    types = [_TYPES[dtype][kind] for kind in kernel.kinds]
    sizes = [max(d.itemsize for d in each if d is not None) for each in types]
    operands = tuple(zip(types, sizes, kernel.results, strict=True))
    return getattr(native.module(), name), native.TYPES[dtype], kernel.counts, operands


def fresh(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor for a kernel's result, shaped like another, its contents arbitrary."""
    return torch.empty_like(like, dtype=dtype, memory_format=torch.contiguous_format)


def laid(*tensors: Tensor) -> list[Tensor]:
    """Return tensors as kernels read them; a copy of one that does not lie so."""
    return [t if lies(t) else t.clone(memory_format=torch.contiguous_format) for t in tensors]


def lies(t: Tensor) -> bool:
    """Return whether a tensor is contiguous, begins where its type may, and is negated by nobody
    who reads it."""
    return t.is_contiguous() and not t.is_neg() and not t.data_ptr() % t.itemsize


def _refusal(name: str, place: int, types: _Types, count: int, t: Tensor | None) -> str:
    found = "nothing" if t is None else f"{tuple(t.shape)} {t.dtype} on {t.device}"
    wanted = " or ".join(str(dtype) for dtype in types if dtype is not None)
    return (
        f"native {name} takes {_KERNELS[name].names[place]} as {count} contiguous values of"
        f" {wanted} on the CPU (its types are float32, bfloat16 or float64, one for all), not"
        f" {found}"
    )
