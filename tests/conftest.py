"""How the tests are run.

`pytest --instruction-set avx2` (or portable, ...) runs the kernels of that instruction set, as on a
machine that has no better one; what tests start as programs of their own keeps the best.

`pytest --sample SEED` runs a twelfth of the cases of what is marked `sweep`, drawn by the seed;
`--share 4` with it a quarter.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():  # Triton asks when it is imported, and griffin imports it
    os.environ.setdefault("TRITON_INTERPRET", "1")
from griffin.model import Griffin
from griffin.ops import native
from tests.support.sample import sampled
from tests.support.toy_models import TOYS, make_model

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
# The machine may be slow, or busy; no example is.
settings.register_profile("griffin", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("griffin")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--instruction-set", help="the native kernels' instruction set: avx2, ...")
    parser.addoption("--sample", type=int, metavar="SEED", help="run a share of each sweep")
    parser.addoption("--share", type=int, default=12, help="one case of so many, with --sample")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (seed := config.getoption("--sample")) is None:
        return
    sweeps = [item.nodeid for item in items if item.get_closest_marker("sweep")]
    left = set(sweeps) - sampled(sweeps, seed, config.getoption("--share"))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left])
    items[:] = [item for item in items if item.nodeid not in left]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if (seed := config.getoption("--sample")) is not None:
        terminalreporter.write_line(f"of each sweep a share; the same again with --sample {seed}")


@pytest.fixture(scope="session", autouse=True)
def _instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    if (name := request.config.getoption("--instruction-set")) is None:
        yield
    else:
        with native.instruction_set(name):
            yield


@pytest.fixture(scope="session", autouse=True)
def _no_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the defaults of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(params=TOYS)
def toy(request: pytest.FixtureRequest) -> Griffin:
    return make_model(TOYS[request.param])
