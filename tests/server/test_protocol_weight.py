"""What a body's JSON weighs, found in short calls: a long one would stop every thread."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.server.protocol import body

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_texts = st.text('ab"\\[]{},', max_size=8)


@given(
    st.recursive(
        st.none() | _texts | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
    )
)
def test_strings_are_left_out_before_values_are_counted(value):
    """The oracle: a regular expression, which takes a body in one long breath."""
    data = json.dumps(value).encode()
    assert body._without_strings(data) == _STRINGS.sub(b"", data)


@pytest.mark.parametrize("depth", [0, 1, 7, 4095, 4096, 4097, 9000])
def test_levels_are_counted_across_pieces(depth):
    assert body._levels(b"[" * depth + b"]" * depth + b"{}" * 3) == max(depth, 1)
