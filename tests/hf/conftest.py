"""Models of either config, beside the Griffin whose weights they hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="griffin.hf stands on transformers")

from griffin.hf import GriffinForCausalLM, from_griffin  # noqa: E402
from griffin.model import Griffin  # noqa: E402
from tests.support.toy_checkpoints import HUGGINGFACE  # noqa: E402
from tests.support.toy_models import GRIFFIN, HAWK, make_model  # noqa: E402

# One that transformers' config can express, two that only ours can.
KINDS = {"recurrent_gemma": HUGGINGFACE, "griffin": GRIFFIN, "hawk": HAWK}


@pytest.fixture(params=KINDS)
def griffin(request: pytest.FixtureRequest) -> Griffin:
    return make_model(KINDS[request.param])


@pytest.fixture
def model(griffin: Griffin) -> GriffinForCausalLM:
    return from_griffin(griffin).eval()


@pytest.fixture(autouse=True)
def _no_grad(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.set_grad_enabled("training" in request.module.__name__):
        yield
