"""The kernels of a model one by one, at its shapes, each beside a copy or read of as many bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.bench import work
from griffin.bench.rates import copy_rate, repeat
from griffin.model import Griffin, State
from griffin.model.screen import unembed_best
from griffin.ops import native
from griffin.ops.dispatch import IMPLEMENTATIONS
from griffin.ops.rg_lru import Gate
from griffin.sampling import Sampler, SamplingParams

# Loops over time in Python, nothing to learn from their speed; and what runs on a GPU alone.
_NOT_HERE = ("reference", "triton")
# How a token is chosen, of which the sampler's time depends.
_CHOICES: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0},
    "temperature 0.7": {"temperature": 0.7},
    "top_p 0.95": {"top_p": 0.95},
    "top_k 50": {"top_k": 50},
    "repetition penalty 1.1": {"repetition_penalty": 1.1},
}
# Run, bytes, tokens, what bounds it: "read" or "copy".
Case = tuple[Callable[[], Any], float, int, str]


class Kernels:
    """What can be timed on a loaded model.

    lengths: tokens in a call, for the kernels that take several; one token is always among them.
    """

    def __init__(self, model: Griffin, lengths: Sequence[int]) -> None:
        self._model = model
        self._cases: dict[str, Callable[[], Case]] = {}
        self._linears()
        self._choices()
        for length in (1, *lengths):
            for op in IMPLEMENTATIONS:
                self._op(op, length)

    def names(self) -> list[str]:
        """Return the names that `measure` takes."""
        return list(self._cases)

    def measure(self, name: str, seconds: float) -> dict[str, Any]:
        """Time one kernel: "seconds" of a call, "bytes", "tokens", what "bound"s it, "copy_rate".

        Bytes are those that have to be read and written once each; the rate is of a plain copy of
        as many into a new tensor.
        """
        run, nbytes, tokens, bound = self._cases[name]()
        took = repeat(run, seconds)
        rate = copy_rate(int(nbytes / 2), seconds) if bound == "copy" else None
        return {
            "seconds": took,
            "bytes": nbytes,
            "tokens": tokens,
            "bound": bound,
            "copy_rate": rate,
        }

    def _linears(self) -> None:
        """Every matrix of a shape, in turn, for one token: none waits in the cache for its next
        turn."""
        groups: dict[tuple[int, int], list[nn.Module]] = {}
        for module in self._model.model.layers.modules():
            if hasattr(module, "in_features") and hasattr(module, "out_features"):
                shape = (module.out_features, module.in_features)
                groups.setdefault(shape, []).append(module)  # pyright: ignore[reportArgumentType]
        for (out, inputs), modules in groups.items():

            def case(modules: list[nn.Module] = modules, inputs: int = inputs) -> Case:
                x = torch.randn(1, inputs, dtype=self._model.dtype)
                nbytes = sum(work.weight_bytes(module) for module in modules)
                run = torch.no_grad()(lambda: [module(x) for module in modules])
                return run, nbytes, 1, "read"

            self._cases[f"linear {out}x{inputs}, 1 row, {len(modules)} in turn"] = case
        config = self._model.config

        def head() -> Case:
            x = torch.randn(1, config.width, dtype=self._model.dtype)
            run = torch.no_grad()(lambda: self._model.unembed(x))
            return run, work.head_bytes(self._model), 1, "read"

        def behind_a_screen(bits: Literal[2, 3]) -> Case:
            x = torch.randn(1, config.width, dtype=self._model.dtype)
            run = torch.no_grad()(lambda: unembed_best(self._model, x, bits))
            return run, work.screened_bytes(self._model, bits), 1, "read"

        self._cases[f"head {config.vocab_size}x{config.width}, 1 row"] = head
        if self._model.screen is not None:
            name = f"head {config.vocab_size}x{config.width} behind its screen, 1 row"
            self._cases[f"{name}, greedy"] = partial(behind_a_screen, 2)
            self._cases[f"{name}, drawn from all"] = partial(behind_a_screen, 3)

    def _choices(self) -> None:
        """Add the choice of a token from a row of logits, of a prompt with a thousand tokens."""
        size = self._model.config.vocab_size
        for name, fields in _CHOICES.items():

            def case(fields: dict[str, Any] = fields) -> Case:
                params = SamplingParams.from_dict({"seed": 0, **fields})
                sampler = Sampler(params, size, torch.randint(size, (1000,)))
                logits = 3 * torch.randn(size)
                return lambda: sampler.sample(logits), logits.nbytes, 1, "read"

            self._cases[f"choice among {size}, {name}"] = case

    def _op(self, op: str, length: int) -> None:
        config = self._model.config
        attends = "attention" in config.block_types
        if op == "linear_scan":
            makers = {"forward": self._scan, "backward": self._scan_backward} if length > 1 else {}
        else:
            one = {
                "causal_conv": self._conv,
                "rg_lru": self._rg_lru,
                "local_attention": self._attention,
            }
            makers = (
                {"forward": one[op]} if op in one and (op != "local_attention" or attends) else {}
            )
        if "recurrent" not in config.block_types and op != "local_attention":
            return
        for pass_, make in makers.items():
            for implementation in IMPLEMENTATIONS[op]:
                if implementation in _NOT_HERE or (
                    implementation == "native" and not native.built()
                ):
                    continue

                def case(make: Any = make, implementation: str = implementation) -> Case:
                    with ops.use(implementation):
                        run, nbytes = make(length)

                    def forced() -> None:
                        with ops.use(implementation):
                            run()

                    return forced, nbytes, length, "copy"

                direction = " backward" if pass_ == "backward" else ""
                self._cases[f"{op}{direction}, {length} tokens, {implementation}"] = case

    def _random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*shape, dtype=dtype or self._model.dtype)

    def _positions(self, length: int) -> Tensor:
        return torch.arange(1, length + 1)[None]

    def _scan(self, length: int) -> tuple[Callable[[], Any], float]:
        e = self._model.config.lru_width
        x, h0 = (
            self._random(1, length, e, dtype=torch.float32),
            self._random(1, e, dtype=torch.float32),
        )
        a = torch.sigmoid(self._random(1, length, e, dtype=torch.float32))
        return torch.no_grad()(lambda: ops.linear_scan(x, a, h0)), 3 * x.nbytes

    def _scan_backward(self, length: int) -> tuple[Callable[[], Any], float]:
        e = self._model.config.lru_width
        x, h0 = (
            self._random(1, length, e, dtype=torch.float32),
            self._random(1, e, dtype=torch.float32),
        )
        a = torch.sigmoid(self._random(1, length, e, dtype=torch.float32))
        inputs = [t.requires_grad_() for t in (x, a, h0)]
        y, _ = ops.linear_scan(*inputs)
        grad = torch.randn_like(y)
        run = lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)  # noqa: E731
        return run, 5 * x.nbytes  # reads dh, a and h; writes dx and da

    def _conv(self, length: int) -> tuple[Callable[[], Any], float]:
        conv = self._recurrent().conv_1d
        x = self._random(1, length, conv.weight.shape[0])
        cache = self._random(1, conv.weight.shape[2] - 1, conv.weight.shape[0])
        where = self._positions(length)
        run = torch.no_grad()(lambda: ops.causal_conv(x, conv.weight, conv.bias, where, cache))
        return run, 2 * x.nbytes + 2 * cache.nbytes + work.weight_bytes(conv)

    def _rg_lru(self, length: int) -> tuple[Callable[[], Any], float]:
        lru = self._recurrent().rg_lru
        e = lru.recurrent_param.shape[0]
        x, h0 = self._random(1, length, e), self._random(1, e, dtype=torch.float32)
        gates = (
            Gate(lru.input_gate_weight, lru.input_gate_bias),
            Gate(lru.recurrent_gate_weight, lru.recurrent_gate_bias),
        )
        where = self._positions(length)
        run = torch.no_grad()(lambda: ops.rg_lru(x, *gates, lru.recurrent_param, where, h0))
        return run, 2 * x.nbytes + 2 * h0.nbytes + work.weight_bytes(lru)

    def _attention(self, length: int) -> tuple[Callable[[], Any], float]:
        """Queries that go on with a full ring."""
        config = self._model.config
        size, width = config.attention_window_size, config.head_dim
        q = self._random(1, length, config.num_heads, width)
        k, v = (self._random(1, length, config.num_kv_heads, width) for _ in range(2))
        full = State.zeros(config, dtype=self._model.dtype)
        ring = next(layer for layer in full.layers if layer._fields == ("k", "v"))
        old = self._random(*ring[0].shape), self._random(*ring[1].shape)
        before = torch.tensor([2 * size])
        where = before[:, None] + torch.arange(length)
        window = ops.plan_window(where, size, before, True)
        run = torch.no_grad()(lambda: ops.local_attention(q, k, v, window, old))
        moved = 2 * q.nbytes + 2 * (k.nbytes + v.nbytes) + old[0].nbytes + old[1].nbytes
        return run, moved

    def _recurrent(self) -> Any:
        blocks = (block.temporal_block for block in self._model.model.layers)
        return next(block for block in blocks if hasattr(block, "rg_lru"))
