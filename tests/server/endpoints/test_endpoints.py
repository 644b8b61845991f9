"""The table of endpoints, and that each folder keeps to what the others rely on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from griffin.server import endpoints
from griffin.server.endpoints import ENDPOINTS, OPERATIONS, handlers


def test_every_folder_is_in_the_table():
    found = {path.parent.name for path in Path(endpoints.__file__).parent.glob("*/__init__.py")}
    assert found == set(ENDPOINTS) and len(ENDPOINTS) == len(found)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_operation_has_its_route(name):
    folder = import_module(f"griffin.server.endpoints.{name}")
    route = import_module(f"griffin.server.endpoints.{name}.route")
    assert list(route.HANDLERS) == [operation.route for operation in folder.operations]


def test_no_two_answer_the_same():
    assert len(handlers()) == len(OPERATIONS) == len({(o.method, o.path) for o in OPERATIONS})


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.route)
def test_bounds_and_streams_are_of_what_is_there(operation):
    fields = () if operation.body is None else operation.body.__struct_fields__
    assert set(operation.bounds) <= set(fields)
    assert operation.chunk is None or operation.streams
