"""The rows of a sitting, in order of worth."""

from __future__ import annotations

from griffin.bench.gpu.ceilings import ceilings
from griffin.bench.gpu.parts import parts
from griffin.bench.gpu.reading import large_prefill, long_prefill, prefill
from griffin.bench.gpu.serving import serving
from griffin.bench.gpu.sitting import SittingRow

ROWS = (
    SittingRow(
        name="ceilings",
        seconds=35,
        about="copy, read, bfloat16 and float8 products",
        run=ceilings,
    ),
    SittingRow(
        name="prefill",
        seconds=40,
        about="2B prompts, and the shares of products, attention and scan",
        run=prefill,
    ),
    SittingRow(
        name="engine",
        seconds=30,
        about="512 requests of 512+128 tokens in 256 slots, top_p 0.9",
        run=serving,
    ),
    SittingRow(
        name="parts",
        seconds=20,
        about="scan alone beside a copy, restore of a state",
        run=parts,
    ),
    SittingRow(name="9b-prefill", seconds=30, about="9B, a long prompt", run=large_prefill),
    SittingRow(name="1m", seconds=40, about="2B, a million tokens", run=long_prefill),
)
