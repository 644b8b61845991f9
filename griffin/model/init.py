"""Initial values, as in the reference torch code (its Flax twin differs in gates and MLP)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from griffin.model.config import GriffinConfig

# The moduli of `a` at a recurrence gate of 1/8 (the reference code's choice; the paper's text
# applies the range to a^8): uniform over the area of the ring between them.
MIN_RADIUS, MAX_RADIUS = 0.9, 0.999


@torch.no_grad()
def init_weights(
    model: nn.Module, config: GriffinConfig, generator: torch.Generator | None = None
) -> None:
    """Draw every parameter of a Griffin anew. Griffin, section 2; RecurrentGemma, section 2."""
    for name, parameter in model.named_parameters():
        init_parameter(name, parameter, config, generator)


def init_parameter(
    name: str, out: Tensor, config: GriffinConfig, generator: torch.Generator | None = None
) -> None:
    """Fill one parameter in place; `name` is its name in the state dict."""
    if name.endswith("recurrent_param"):
        area = torch.empty(out.shape, dtype=torch.float32, device=out.device)
        area.uniform_(MIN_RADIUS**2, MAX_RADIUS**2, generator=generator)
        out.copy_(torch.log(torch.expm1(-0.5 * area.log())))  # softplus of it is -log |a|
    elif (std := init_std(name, config)) == 0:
        out.zero_()
    else:
        out.normal_(0.0, std, generator=generator)


def init_std(name: str, config: GriffinConfig) -> float:
    """Return the standard deviation of a parameter's initial values; 0 for biases and norms."""
    kind = name.rsplit(".", 2)[-2]
    if name.endswith(("bias", "norm.weight")):
        return 0.0
    if name.endswith("gate_weight"):
        return math.sqrt(config.num_gate_blocks / config.lru_width)
    if kind == "conv_1d":
        return math.sqrt(0.01 / config.conv_width)
    # What a block adds to the stream shrinks with depth.
    if kind in ("linear_out", "o_proj", "down_proj"):
        fan_in = {
            "linear_out": config.lru_width,
            "o_proj": config.width,
            "down_proj": config.mlp_width,
        }[kind]
        return math.sqrt(2.0 / config.num_layers / fan_in)
    return math.sqrt(1.0 / config.width)
