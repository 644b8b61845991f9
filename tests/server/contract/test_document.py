"""The published OpenAPI document, taken at its word by schemathesis: what it allows, and what it
does not."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from griffin.server.endpoints import OPERATIONS
from tests.support.live_server import serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,  # each status is one that the document has for this operation
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 60  # of each operation and each mode


@pytest.fixture(scope="module")
def small(llm, tmp_path_factory):
    """A server of short answers, with something to be found under the shortest name."""
    limits = {"max_tokens": 6, "default_max_tokens": 3, "max_rows": 8}
    store = tmp_path_factory.mktemp("document") / "store"
    with serving(llm, store, limits=limits, store_bytes=32 << 20) as live, live.http() as http:
        http.post("/v1/sessions", json={"name": "0"})
        http.post("/v1/states", json={"name": "0", "text": "owl"})
        yield live


@pytest.fixture(scope="module")
def document(small):
    return schemathesis.openapi.from_url(f"{small.url}/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"]
)
@pytest.mark.parametrize("route", [operation.route for operation in OPERATIONS])
def test_every_operation_keeps_its_word(small, document, route, mode):
    method, path = route.split()
    operation = document[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        pytest.skip("nothing can be wrong with it")

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def go(case):
        case.call_and_validate(base_url=small.url, checks=CHECKS)

    go()
    assert small.idle()
