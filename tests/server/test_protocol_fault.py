"""What does not fit is found by asking ever smaller parts."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from griffin.server.protocol import fault as module
from griffin.server.protocol.fault import ABSENT, Fault, find_fault


class Leaf(msgspec.Struct):
    id: Annotated[int, Meta(ge=0, le=9)]
    text: str | None = None


class Tree(msgspec.Struct):
    leaves: list[Leaf]
    ids: list[Annotated[int, Meta(ge=0, le=9)]] | str = ""
    notes: dict[Annotated[str, Meta(max_length=2)], str | Leaf] | None = None


GOOD = {"leaves": [{"id": 1}, {"id": 2, "text": "x"}], "ids": [1, 2], "notes": {"a": {"id": 3}}}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, None),
        ({"leaves": None}, Fault("leaves", None, "a list")),
        ({"leaves": [{"id": 1}, {}]}, Fault("leaves[1].id", ABSENT, "a whole number from 0 to 9")),
        ({"leaves": [{"id": 1}, 5]}, Fault("leaves[1]", 5, "an object")),
        ({"leaves": [{"id": 10}]}, Fault("leaves[0].id", 10, "a whole number from 0 to 9")),
        ({"leaves": [{"id": 1, "text": 2}]}, Fault("leaves[0].text", 2, "a string or null")),
        ({"ids": [1, "x"]}, Fault("ids[1]", "x", "a whole number from 0 to 9")),
        ({"ids": True}, Fault("ids", True, "a list or a string")),
        (
            {"notes": {"abc": ""}},
            Fault("notes", "abc", "a string of at most 2 characters", "a key of "),
        ),
        ({"notes": {"a": 1}}, Fault("notes", 1, "a string or an object", "a value in ")),
        ({"notes": {"a": {"id": ""}}}, Fault("notes.id", "", "a whole number from 0 to 9")),
    ],
)
def test_the_smallest_part_is_found(fields, found):
    assert find_fault(GOOD | fields, Tree) == found


@pytest.mark.parametrize("place", [0, 1, 511, 512, 998, 999])
def test_a_long_list_is_asked_by_halves(place, monkeypatch):
    asked: list[object] = []
    fits = module._fits
    monkeypatch.setattr(
        module, "_fits", lambda value, kind: asked.append(value) or fits(value, kind)
    )
    ids = [1] * 1000
    ids[place] = 10
    found = find_fault({"leaves": [], "ids": ids}, Tree)
    assert found is not None and found.path == f"ids[{place}]" and len(asked) < 20
