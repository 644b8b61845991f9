"""Random requests in company against the same requests alone: a few seconds here, minutes in
`soak`."""

from __future__ import annotations

import random

import pytest

from griffin.quant.quantize import quantize_model
from tests.support.toy_engine import make_model
from tools.soak_engine import make_engine, play, soak


@pytest.mark.sweep
@pytest.mark.parametrize("format", [None, "int8"])
def test_a_short_round(format):
    model = make_model() if format is None else quantize_model(make_model(), format)
    engine = make_engine(model, slots=4)
    tally = play(engine, model, random.Random(1), requests=40)
    assert min(tally) >= 1, f"{tally}: this round shows too little"
    stats = engine.stats()
    assert stats.tokens_reused > 100, "the cache was never of use; this round shows nothing"


@pytest.mark.thorough
def test_a_short_round_on_a_thread():
    model = make_model()
    with make_engine(model) as engine:
        tally = play(engine, model, random.Random(2), requests=24)
    assert min(tally) >= 1, f"{tally}: this round shows too little"


@pytest.mark.slow
def test_a_long_soak():
    """Two minutes; `python -m tools.soak_engine --minutes 10` for the whole."""
    soak(120)
