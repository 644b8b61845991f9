"""How the tests are run.

`pytest --instruction-set avx2` (or portable, ...) runs the kernels of that instruction set, as on a
machine that has no better one; what tests start as programs of their own keeps the best.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from griffin.model import Griffin
from griffin.ops import native
from tests.support.toy_models import TOYS, make_model

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


@pytest.fixture(params=TOYS)
def toy(request: pytest.FixtureRequest) -> Griffin:
    return make_model(TOYS[request.param])
