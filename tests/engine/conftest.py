"""The toy model of the engine's tests, made once."""

from __future__ import annotations

import pytest

from griffin.model import Griffin
from tests.support.toy_engine import make_model


@pytest.fixture(scope="session")
def model() -> Griffin:
    return make_model()
