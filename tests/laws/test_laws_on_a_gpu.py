"""The laws where the model's ops run as on a GPU: Triton's kernels, in the interpreter."""

from __future__ import annotations

from typing import Any

import pytest

from griffin.model import Griffin
from tests.laws import test_laws as laws
from tests.support.toy_models import GRIFFIN, make_model
from tests.support.triton import as_on_a_gpu, interpreted

__all__ = ["as_on_a_gpu", "interpreted"]
pytestmark = pytest.mark.usefixtures("as_on_a_gpu")


@pytest.fixture
def griffin() -> Griffin:
    return make_model(GRIFFIN)


def test_pieces(griffin):
    laws.agree_in_pieces(griffin, [1, 2, laws.W + 1, 5])


def test_ragged_rows_after_a_state(griffin):
    laws.agree_in_company(griffin, True, [1, 4, laws.W + 1, 0])


def test_packed_documents(griffin):
    laws.test_packing(griffin)


_ALL: dict[str, Any] = {
    name: staticmethod(law) for name, law in vars(laws).items() if name.startswith("test_")
}
TestEveryLaw = pytest.mark.slow(type("TestEveryLaw", (), _ALL))
