"""The rows of a sitting, in order of worth."""

from __future__ import annotations

from griffin.bench.gpu.ceilings import ceilings
from griffin.bench.gpu.compiling import compiling
from griffin.bench.gpu.decoding import decode, large_decode
from griffin.bench.gpu.equality import equality
from griffin.bench.gpu.kernels import kernels
from griffin.bench.gpu.memcheck import memcheck
from griffin.bench.gpu.parts import parts
from griffin.bench.gpu.reading import large_prefill, long_prefill, prefill
from griffin.bench.gpu.serving import serving
from griffin.bench.gpu.sitting import SittingRow
from griffin.bench.gpu.training import training

ROWS = tuple(
    SittingRow(name=name, seconds=seconds, about=about, run=run)
    for name, seconds, about, run in (
        ("ceilings", 35, "copy, read, bfloat16 and float8 products", ceilings),
        ("compile", 40, "all kernels at once; registers and spills", compiling),
        ("kernels", 50, "every kernel against float64, at three shapes in two types", kernels),
        ("equality", 60, "2B: graphs and no graphs, company, fork, restore", equality),
        ("decode", 85, "2B steps of 1 to 1,024 rows in three formats", decode),
        ("prefill", 40, "2B prompts, and the shares of products, attention and scan", prefill),
        ("engine", 30, "512 requests of 512+128 tokens in 256 slots, top_p 0.9", serving),
        ("parts", 30, "scan beside a copy, restore of a state, a fixed order of sums", parts),
        ("training", 40, "a step, beside a transformer's of the same width", training),
        ("9b-decode", 40, "9B steps of 1, 32 and 256 rows in three formats", large_decode),
        ("9b-prefill", 30, "9B, a long prompt", large_prefill),
        ("1m", 40, "2B, a million tokens", long_prefill),
        ("memcheck", 30, "compute-sanitizer over the kernels at toy shapes", memcheck),
    )
)
