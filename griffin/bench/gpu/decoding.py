"""One token of every row: a bare step, captured as the engine captures it, and what it allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.limits import WEIGHT_BYTES, decode_limit
from griffin.bench.gpu.scene import Scene
from griffin.engine.flight import StepMemory
from griffin.model import GriffinConfig
from griffin.sampling import SamplingParams
from griffin.sampling.table import row_values

# Tokens a second of an H200, by format and rows.
_SMALL = {
    ("bf16", 1): 560.0,
    ("bf16", 8): 4_900.0,
    ("bf16", 32): 17_500.0,
    ("bf16", 128): 42_000.0,
    ("bf16", 256): 53_000.0,
    ("bf16", 512): 64_000.0,
    ("bf16", 1024): 70_000.0,
    ("int8", 1): 900.0,
    ("int8", 32): 28_000.0,
    ("int4", 1): 1_250.0,
    ("int4", 32): 38_000.0,
}
_LARGE = {
    ("bf16", 1): 200.0,
    ("bf16", 256): 20_000.0,
    ("int8", 1): 350.0,
    ("int4", 1): 540.0,
}


def decode(scene: Scene) -> Iterator[Figure]:
    """Step with the small model in each format, rows few and many, contexts short and long."""
    wanted = dict(_SMALL)
    for format in WEIGHT_BYTES:
        for figure in steps(scene, scene.small, format, scene.sizes.batches, wanted):
            rows = figure.detail.get("rows")
            if format == "bf16" and rows == 256 and figure.unit == "tokens/s":
                # Packed weights are to cost nothing where products are bound by operations.
                wanted |= {("int8", 256): figure.value, ("int4", 256): figure.value}
            yield figure


def large_decode(scene: Scene) -> Iterator[Figure]:
    """Step with the large model."""
    for format in WEIGHT_BYTES:
        yield from steps(scene, scene.large, format, scene.sizes.large_batches, _LARGE)


def steps(
    scene: Scene,
    config: GriffinConfig,
    format: str,
    batches: tuple[int, ...],
    wanted: Mapping[tuple[str, int], float],
) -> Iterator[Figure]:
    """Time steps of a model in a format, of each number of rows after each number of tokens."""
    model = scene.model(config, format)
    runner, slots = scene.runner(model, batches)
    for rows in batches:
        speeds: list[float] = []
        for context in scene.sizes.contexts:
            tell(runner.memory, rows)
            slots.view(0, rows).pos.fill_(context)
            seconds = scene.seconds(runner.replays[rows])
            limit = decode_limit(config, format, rows, scene.ceiling, context)
            speeds.append(rows / seconds)
            yield Figure(
                what=f"decode, {scene.name(config)} {format}, {rows:,} rows, {context:,} tokens",
                value=speeds[-1],
                unit="tokens/s",
                limit=limit.tokens_per_second,
                wanted=wanted.get((format, rows)),
                detail={"rows": rows, "seconds": seconds, "bound": limit.bound},
            )
        short, long = scene.sizes.contexts
        yield Figure(
            what=f"{format}, {rows:,} rows: {long:,} tokens of context beside {short:,}",
            value=speeds[1] / speeds[0],
            unit="x",
            limit=1.0,
            wanted=0.98,
        )


def tell(memory: StepMemory, rows: int) -> None:
    """Let a step draw for all rows, each from the token that it drew before."""
    values = {"given": 0, "uniform": 0.5} | row_values(SamplingParams())
    columns = {name: [value] * rows for name, value in values.items()}
    memory.tell(columns | {"source": list(range(rows)), "live": [rows]}, [[-1] * rows] * 4)
