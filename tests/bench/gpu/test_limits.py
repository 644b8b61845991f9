"""The limits against the table that the work on GPUs set out from."""

from __future__ import annotations

import pytest

from griffin.bench.gpu.limits import decode_limit, prefill_limit, row_bytes, weight_bytes
from griffin.model import GriffinConfig

ROWS = (1, 8, 32, 128, 256, 512, 1024)
# Tokens a second on an H200: 4.3 TB/s and 790 TFLOP/s, rounded as the table is.
TABLE = {
    ("2b", "bf16"): (799, 6_229, 22_900, 69_700, 105_600, 142_200, 142_800),
    ("2b", "int8"): (1_577, 12_000, 41_200, 105_100, 141_800, 142_800, 142_800),
    ("2b", "int4"): (2_751, 20_200, 63_200, 135_200, 142_800, 142_800, 142_800),
    ("9b", "bf16"): (250, 1_978, 7_600, 26_300, 44_600, 45_000, 45_000),
    ("9b", "int8"): (496, 3_879, 14_400, 44_400, 45_000, 45_000, 45_000),
    ("9b", "int4"): (871, 6_692, 23_500, 45_000, 45_000, 45_000, 45_000),
}
# GB of weights, MB of a row with its logits; of three digits, and the biases were left out.
BYTES = {
    ("2b", "bf16"): (5.36, 19.8),
    ("2b", "int8"): (2.71, 19.8),
    ("2b", "int4"): (1.54, 19.8),
    ("9b", "bf16"): (17.2, 29.4),
    ("9b", "int8"): (8.63, 29.4),
    ("9b", "int4"): (4.91, 29.4),
}


@pytest.mark.parametrize(("size", "format"), TABLE)
def test_decode_is_the_tables(size, format):
    config = GriffinConfig.preset(f"recurrentgemma-{size}")
    for rows, expected in zip(ROWS, TABLE[size, format], strict=True):
        found = decode_limit(config, format, rows)
        assert found.tokens_per_second == pytest.approx(expected, rel=3e-3), rows
        assert found.bound == ("operations" if expected in (142_800, 45_000) else "bytes")
    found = weight_bytes(config, format) / 1e9, row_bytes(config) / 1e6
    assert found == pytest.approx(BYTES[size, format], rel=4e-3)


@pytest.mark.parametrize(
    ("size", "expected", "giga"), [("2b", 187_000, 4.22), ("9b", 51_000, 15.46)]
)
def test_prefill_is_the_tables(size, expected, giga):
    config = GriffinConfig.preset(f"recurrentgemma-{size}")
    found = prefill_limit(config)
    assert found.tokens_per_second == pytest.approx(expected, rel=3e-3)
    assert found.operations / 1e9 == pytest.approx(giga, rel=1e-3)
    # What a long prompt's mean token costs comes to the same, but for the head of its last one.
    long = prefill_limit(config, length=1_000_000)
    assert long.tokens_per_second == pytest.approx(found.tokens_per_second, rel=3e-3)


def test_a_short_context_costs_less_and_a_long_one_no_more():
    config = GriffinConfig.preset("recurrentgemma-2b")
    short, full, long = (row_bytes(config, n) for n in (100, 2_048, 100_000))
    assert short < full == long == row_bytes(config)
