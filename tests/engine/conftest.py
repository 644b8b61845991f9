from __future__ import annotations

import pytest

from griffin.model import Griffin
from tests.engine import toy


@pytest.fixture(scope="session")
def engine_model() -> Griffin:
    return toy.make_model()
