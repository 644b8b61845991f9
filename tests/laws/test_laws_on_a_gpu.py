"""The laws where the model's ops run as on a GPU: Triton's kernels, in the interpreter."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from griffin.model import Griffin
from griffin.ops.launching import record
from tests.laws import test_laws as laws
from tests.support.toy_models import GRIFFIN, make_model, make_tokens
from tests.support.triton import TOLERANCE, as_on_a_gpu, error, interpreted

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


@pytest.fixture
def narrow() -> Griffin:
    """In bfloat16, whose prompts attend by a kernel. One block of each kind: the rest is alike."""
    config = GRIFFIN.replace(block_types=("recurrent", "attention"))
    return make_model(config, dtype=torch.bfloat16)


EXACT = {
    "purity": lambda model: laws.test_purity(model, laws.W + 2),
    "donated": laws.test_donated_state_fails_loudly,
    "packing": laws.test_packing_does_not_leak,
    "rollback": laws.test_rollback,
}


@pytest.mark.thorough
@pytest.mark.parametrize("law", EXACT)
def test_laws_to_the_bit_in_bfloat16(narrow, law):
    with record() as launches:
        EXACT[law](narrow)
    assert "_local_attention" in {each.name for each in launches}


@pytest.mark.thorough
@pytest.mark.parametrize("sizes", [[laws.LENGTH], [1, laws.W + 1, 2, laws.LENGTH - laws.W - 4]])
def test_bfloat16_in_pieces_is_as_near_to_the_truth(narrow, sizes):
    """A row alone, and two; what float32 makes of the same weights is the truth."""
    tokens = make_tokens(narrow.config, 2, laws.LENGTH)
    truth, _ = deepcopy(narrow).float()(tokens)
    got, _ = laws.read(narrow, tokens, sizes)
    alone, _ = laws.read(narrow, tokens[:1], sizes)
    most = 2 * TOLERANCE[torch.bfloat16]
    assert error(got, truth) <= most and error(alone, truth[:1]) <= most


_ALL: dict[str, Any] = {
    name: staticmethod(law) for name, law in vars(laws).items() if name.startswith("test_")
}
TestEveryLaw = pytest.mark.slow(type("TestEveryLaw", (), _ALL))
