"""Whether a machine has the memory for several replicas, told before anything is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from griffin.cli.shared.devices import memory_bytes, memory_of, place_of, place_of_replica
from griffin.cli.shared.sizes import binary
from griffin.cli.shared.spec import ModelSpec, spec_of

if TYPE_CHECKING:
    from griffin.capacity import Capacity
    from griffin.cli.shared.model_source import ModelSource


def check_memory(
    replicas: int, source: ModelSource, *, slots: int, chunk: int | None, cache_bytes: int
) -> None:
    """Raise ValueError if so many processes, each with model and slots, do not fit in memory.

    On GPUs it is their memory that counts, each with its share of the processes; prefix caches lie
    in the machine's. No weights are read.
    """
    place = place_of(source.device)
    on_gpu = place.startswith("cuda")
    spec = spec_of(source)

    def planned(format: str | None, slots: int | None, ram_bytes: int = 1 << 62) -> Capacity:
        return _planned(source, spec, format, slots, ram_bytes, chunk, cache_bytes, place)

    each = planned(spec.format, slots)
    shares = Counter(place_of_replica(source.device, number + 1) for number in range(replicas))
    for at, count in shares.items():
        there = memory_of(at or place)
        if count * each.total_bytes <= there.nbytes:
            continue
        fit = there.nbytes // each.total_bytes
        whole, one = binary(count * each.total_bytes), binary(each.total_bytes)
        parts = f"{binary(each.weight_bytes)} of weights, {binary(each.live_bytes)} of states"
        if not on_gpu:
            raise ValueError(
                f"{replicas} replicas take up to {whole}, {one} each: {parts},"
                f" {binary(cache_bytes)} of prefix cache, ...; there are {binary(there.nbytes)},"
                f" enough for {fit}. Ask for fewer --replicas or --slots, or a smaller"
                " --cache-bytes; `griffin plan` shows the parts"
            )
        taken = (
            f"{count} replicas take up to {whole}, {one} each" if count > 1 else f"it takes {one}"
        )
        raise ValueError(
            f"{source.model} does not fit on {there.name}: {taken}: {parts}, ...;"
            f" {binary(there.nbytes)} of {binary(there.total)} are free there."
            + _fitting(planned, spec.format, there.nbytes // count)
        )
    if on_gpu and replicas * cache_bytes > memory_bytes():
        raise ValueError(
            f"prefix caches lie in this machine's memory: {replicas} of {binary(cache_bytes)} do"
            f" not fit in {binary(memory_bytes())}; ask for a smaller --cache-bytes"
        )


def _planned(
    source: ModelSource,
    spec: ModelSpec,
    format: str | None,
    slots: int | None,
    ram_bytes: int,
    chunk: int | None,
    cache_bytes: int,
    place: str,
) -> Capacity:
    import torch

    from griffin.capacity import plan
    from griffin.cli.shared.adapters import adapter_facts
    from griffin.engine.device_part import STATES
    from griffin.engine.devices import default_chunk
    from griffin.model.step_kernels import why_unfit

    on_gpu = place.startswith("cuda")
    unfit = why_unfit(spec.config, spec.dtype, bool(source.adapter))
    added = adapter_facts(source.adapters, spec.config, spec.dtype)
    return plan(
        spec.config,
        ram_bytes=ram_bytes,
        dtype=spec.dtype,
        format=format,
        slots=slots,
        chunk=default_chunk(torch.device(place)) if chunk is None else chunk,
        prefix_cache_bytes=0 if on_gpu else cache_bytes,
        device_states=STATES if on_gpu and cache_bytes else 0,
        weight_bytes=spec.weight_bytes(format) + sum(a["bytes"] for a in added),
        graphs=on_gpu and not source.no_graphs and unfit is None,
    )


def _fitting(
    planned: Callable[[str | None, int | None, int], Capacity], format: str | None, nbytes: int
) -> str:
    """Return what would fit into so many bytes instead, for the end of an error."""
    fits: list[str] = []
    for other in (format, "int8", "int4"):
        with suppress(ValueError):
            slots = planned(other, None, nbytes).slots
            how = "" if other == format else f"--quantize {other} with "
            fits.append(f"{how}--slots {slots} or fewer")
    return (
        f" What fits: {'; '.join(dict.fromkeys(fits))}" if fits else " Nothing smaller fits either"
    )
