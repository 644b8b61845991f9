"""Toy models whose every config field is away from its default, so that no field can be ignored
unnoticed; and how the tests are run.

`pytest --instruction-set avx2` (or portable, ...) runs the kernels of that instruction set, as on a
machine that has no better one; what tests start as programs of their own keeps the best.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from griffin.model import Griffin, GriffinConfig
from griffin.ops import native

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
# The machine may be slow, or busy; no example is.
settings.register_profile("griffin", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("griffin")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--instruction-set", help="the native kernels' instruction set: avx2, ...")


@pytest.fixture(scope="session", autouse=True)
def _instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    if (name := request.config.getoption("--instruction-set")) is None:
        yield
    else:
        with native.instruction_set(name):
            yield


GRIFFIN = GriffinConfig(
    vocab_size=89,
    width=48,
    mlp_width=80,
    lru_width=40,
    num_heads=6,
    num_kv_heads=2,
    num_gate_blocks=5,
    block_types=("recurrent", "attention", "recurrent", "attention", "recurrent"),
    attention_window_size=16,
    conv_width=3,
    logits_soft_cap=5.0,
    scale_embeddings=True,
    rms_norm_eps=1e-4,
    rope_theta=500.0,
    rope_fraction=0.75,
    attention_bias=True,
    tie_embeddings=False,
)
HAWK = GRIFFIN.replace(block_types=("recurrent",) * 3, conv_width=4, tie_embeddings=True)
TOYS = {"griffin": GRIFFIN, "hawk": HAWK}


def make_model(config: GriffinConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> Griffin:
    """Return a model none of whose parameters is zero, so that biases and norms count too."""
    generator = torch.Generator().manual_seed(seed)
    model = Griffin(config).to(torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = 0.2 if parameter.dim() == 1 or "bias" in name else parameter.shape[-1] ** -0.5
            mean = -3.0 if name.endswith("recurrent_param") else 0.0  # a near 1: it remembers
            parameter.normal_(mean, std, generator=generator)
    return model.to(dtype).requires_grad_(False)


def make_tokens(config: GriffinConfig, rows: int, steps: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(
        config.vocab_size, (rows, steps), generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture(params=TOYS)
def toy(request: pytest.FixtureRequest) -> Griffin:
    return make_model(TOYS[request.param])
