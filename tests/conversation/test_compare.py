from __future__ import annotations

import pytest
import torch

from griffin.conversation import compare


def state_of(llm, ids):
    return llm.model.trunk(torch.tensor([ids]))[1]


def test_equal_states_and_other_ones(llm):
    config = llm.model.config
    ids = [1 + i % 90 for i in range(50)]
    one, same = state_of(llm, ids), state_of(llm, ids)
    found = compare(config, one, same)
    assert [(each.layer, each.part) for each in found] == [
        *((0, "lru"), (0, "conv"), (1, "lru"), (1, "conv"), (2, "k"), (2, "v"))
    ]
    assert all(
        each.equal and each.distance == 0 and each.cosine == pytest.approx(1) for each in found
    )
    other = one.clone()
    other.layers[0].lru.mul_(-1)
    other.layers[2].v[0, 7] += 1
    by_part = {(each.layer, each.part): each for each in compare(config, one, other)}
    assert by_part[0, "lru"].distance == pytest.approx(2) and by_part[
        0, "lru"
    ].cosine == pytest.approx(-1)
    assert not by_part[2, "v"].equal and 0 < by_part[2, "v"].distance < 2
    assert by_part[2, "k"].equal and by_part[1, "lru"].equal


def test_keys_and_values_are_compared_from_the_last_position_back(llm):
    """A token's values in the first layers depend on what was before; equal ends of text make them
    closer."""
    ids = [1 + i % 90 for i in range(60)]
    short = {
        each.part: each
        for each in compare(llm.model.config, state_of(llm, ids), state_of(llm, ids[40:]))
    }
    assert 0 < short["v"].distance < 1 and short["v"].cosine > 0.5


def test_states_of_other_shapes_are_refused(llm):
    one = state_of(llm, [1, 2])
    with pytest.raises(ValueError, match="one row"):
        compare(llm.model.config, one, one.select([0, 0]))
