"""Weights in bfloat16 that still learn: AdamW whose results are rounded up or down by lot.

Rounded to the nearest, a step smaller than half the distance between two bfloat16 numbers (a part
in 512 of the weight at worst) is lost, however often it is repeated. Here a value between two
neighbours becomes the upper one with a probability that is its share of the way there, so that the
mean of many roundings is the value itself.

The lot is no generator with a state but a hash of (seed, step, tensor's name, index): what a weight
becomes depends neither on what was rounded before, nor on who holds which part of a tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LARGEST = torch.finfo(torch.bfloat16).max
_BLOCK = 1 << 18  # values at a time: what they pass through on the way stays in the cache


def rounding_key(seed: int, step: int, name: str) -> int:
    """Return the 64-bit key of one rounding of one tensor."""
    text = f"{seed} {step} {name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def random_bits(key: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return 16 random bits for each of the indices from `first` on: (count,) int32 below 65,536.

    An index has the same bits in whatever piece it is asked for.
    """
    begin, end = first // 4, -(-(first + count) // 4)  # one hash serves four indices
    z = torch.arange(begin + 1, end + 1, dtype=torch.int64, device=device)
    z = z.mul_(_signed(_GOLDEN)).add_(_signed(key))
    z = z.bitwise_xor_(_shifted(z, 30)).mul_(_signed(_FIRST))
    z = z.bitwise_xor_(_shifted(z, 27)).mul_(_signed(_SECOND))
    z = z.bitwise_xor_(_shifted(z, 31))
    bits = z.view(torch.int16)[first - 4 * begin :][:count]
    return bits.to(torch.int32).bitwise_and_(0xFFFF)


def round_by_lot(values: Tensor, bits: Tensor) -> Tensor:
    """Round float32 values to one of the two bfloat16 numbers beside them; shapes are alike.

    A value that is a bfloat16 number stays, NaN stays NaN, and none becomes infinite: those beyond
    the largest bfloat16 number become that. bits: from `random_bits`.
    """
    held = values.clamp(-_LARGEST, _LARGEST).view(torch.int32)
    # The lower half of the pattern is the share of the way to the neighbour away from zero.
    return (held + bits).bitwise_and_(-0x10000).view(torch.float32).to(torch.bfloat16)


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW over bfloat16 weights: 8 bytes a weight, gradient included.

    Each step computes in float32 and rounds weight and both moments, bfloat16 too, by lot.
    seed: with a tensor's step and name it decides the lot. Parameters come with their names.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        seed: int,
    ) -> None:
        """groups: "params" as (name, parameter), and "weight_decay"."""
        super().__init__(list(groups), {"lr": lr, "betas": betas, "eps": eps, "seed": seed})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change every parameter that has a gradient. closure: not taken."""
        assert closure is None
        for group in self.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is not None:
                    self._update(name, parameter, group)

    def _update(self, name: str, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step = int(state["step"])
        assert parameter.grad is not None
        tensors = (parameter, state["exp_avg"], state["exp_avg_sq"])
        weight, mean, square = (local_part(tensor).view(-1) for tensor in tensors)
        gradient, first = local_part(parameter.grad).reshape(-1), _first_index(parameter)
        keys = [rounding_key(group["seed"], step, name + part) for part in ("", "/m", "/v")]
        (beta1, beta2), rate = group["betas"], group["lr"]
        for at in range(0, weight.numel(), _BLOCK):
            place = slice(at, at + _BLOCK)
            g = gradient[place].float()
            m = mean[place].float().lerp_(g, 1 - beta1)
            v = square[place].float().mul_(beta2).addcmul_(g, g, value=1 - beta2)
            w = weight[place].float().mul_(1 - rate * group["weight_decay"])
            below = (v / (1 - beta2**step)).sqrt_().add_(group["eps"])
            w.addcdiv_(m, below, value=-rate / (1 - beta1**step))
            for key, into, value in zip(keys, (weight, mean, square), (w, m, v), strict=True):
                bits = random_bits(key, first + at, len(g), g.device)
                into[place] = round_by_lot(value, bits)


def local_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor that may be split over several."""
    return getattr(tensor, "to_local", lambda: tensor)()


def _first_index(parameter: Tensor) -> int:
    """Return the index in the whole, flat tensor of the first value that this process holds."""
    if not hasattr(parameter, "to_local"):
        return 0
    (chunk,) = parameter.__create_chunk_list__()  # pyright: ignore[reportAttributeAccessIssue]
    assert list(chunk.sizes[1:]) == list(parameter.shape[1:]), "split by the first dimension alone"
    return int(chunk.offsets[0]) * parameter[0:1].numel() if chunk.offsets else 0


def _shifted(z: Tensor, count: int) -> Tensor:
    """Return int64 patterns shifted to the right, with zeros for what comes in."""
    return (z >> count).bitwise_and_((1 << (64 - count)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
