"""An engine that steps by the kernels of a GPU, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest

from griffin.engine import Engine, Request
from griffin.engine.graphs import NoGraphs
from griffin.ops.launching import record
from tests.engine import test_engine
from tests.support.toy_engine import CHUNK, ask, make_model, plain, run
from tests.support.triton import as_on_a_gpu, by_kernels, interpreted

__all__ = ["as_on_a_gpu", "by_kernels", "interpreted"]
MODEL = make_model()
REQUESTS = [
    ask(2, 0, 2, temperature=0.0),
    ask(1, 1, 3, temperature=0.8, top_p=0.7),
    ask(3, 2, 2, frequency_penalty=0.9, repetition_penalty=1.3),
]


def answers(requests: list[Request], *, graphs: bool) -> list[list[tuple[int, float]]]:
    engine = Engine(MODEL, len(requests), chunk=CHUNK, graphs=NoGraphs() if graphs else False)
    tickets = [engine.submit(request) for request in requests]
    run(engine)
    return [plain(ticket.events(0)) for ticket in tickets]


@pytest.fixture
def expected() -> list[list[tuple[int, float]]]:
    """What they get on the CPU."""
    return answers(REQUESTS, graphs=False)


@pytest.mark.thorough
def test_a_request_gets_the_same_bits_alone_and_in_company(expected, as_on_a_gpu):
    """Rows end one after the other, so the bucket changes on the way."""
    with record() as launches:
        together = answers(REQUESTS, graphs=True)
    assert {"_few_rows", "_step", "_ring_attention", "_draw"} <= {one.name for one in launches}
    assert answers(REQUESTS[1:2], graphs=True) == together[1:2]
    for mine, theirs in zip(together, expected, strict=True):
        assert [id for id, _ in mine] == [id for id, _ in theirs]
        found, truth = [[logprob for _, logprob in each] for each in (mine, theirs)]
        assert found == pytest.approx(truth, abs=1e-4)


_ALL: dict[str, Any] = {
    name: staticmethod(test) for name, test in vars(test_engine).items() if name.startswith("test_")
}
TestTheEngine = pytest.mark.slow(
    pytest.mark.usefixtures("by_kernels")(type("TestTheEngine", (), _ALL))
)
