"""Whether a machine has the memory for several replicas, told before anything is loaded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from griffin.cli.shared.sizes import binary
from griffin.cli.shared.spec import ModelSpec, spec_of

if TYPE_CHECKING:
    from griffin.capacity import Capacity
    from griffin.cli.shared.model_source import ModelSource

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Memory:
    """A memory that models lie in: what people call it, and how much of it is free."""

    name: str
    nbytes: int


def place_of(device: str | None) -> str:
    """Return the device that a model is loaded to; ValueError for one that is not here."""
    from griffin.loading import check_device

    return str(check_device(device))


def place_of_replica(device: str | None, number: int) -> str | None:
    """Return where a replica's model lies, counted from 1: GPUs in turn, unless one is named."""
    import torch

    if not place_of(device).startswith("cuda") or torch.device(device or "cuda").index is not None:
        return device
    return f"cuda:{(number - 1) % torch.cuda.device_count()}"


def memory_of(place: str) -> Memory:
    """Return the memory of a device: of a GPU what no process has taken."""
    import torch

    if not place.startswith("cuda"):
        return Memory("this machine", memory_bytes())
    index = torch.device(place).index or 0
    free, _ = torch.cuda.mem_get_info(index)
    return Memory(f"cuda:{index} ({torch.cuda.get_device_name(index)})", free)


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
        return _planned(
            source, spec, format, slots, ram_bytes, chunk, 0 if on_gpu else cache_bytes, place
        )

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
            f" {binary(there.nbytes)} are free there."
            + _fitting(planned, spec.format, there.nbytes // count)
        )
    if on_gpu and replicas * cache_bytes > memory_bytes():
        raise ValueError(
            f"prefix caches lie in this machine's memory: {replicas} of {binary(cache_bytes)} do"
            f" not fit in {binary(memory_bytes())}; ask for a smaller --cache-bytes"
        )


def check_model(source: ModelSource) -> None:
    """Raise ValueError for a device that is not here, and a GPU too small for a model with a state.

    Before weights are read. On the CPU the system makes room as it can.
    """
    if place_of(source.device).startswith("cuda"):
        check_memory(1, source, slots=1, chunk=None, cache_bytes=0)


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

    from griffin.capacity import model_bytes, plan
    from griffin.cli.shared.adapters import adapter_facts
    from griffin.engine.devices import default_chunk

    added = adapter_facts(source.adapters, spec.config, spec.dtype)
    return plan(
        spec.config,
        ram_bytes=ram_bytes,
        dtype=spec.dtype,
        format=format,
        slots=slots,
        chunk=default_chunk(torch.device(place)) if chunk is None else chunk,
        prefix_cache_bytes=cache_bytes,
        weight_bytes=model_bytes(spec.config, spec.dtype, format) + sum(a["bytes"] for a in added),
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


def memory_bytes() -> int:
    """Return the memory this process may have: the machine's, or its control group's if less."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([found, *_limits()])


def _limits() -> list[int]:
    """Return the limits of this process's control groups (version 2); none elsewhere."""
    if not _OWN_GROUP.is_file():
        return []
    own = [
        line
        for line in _OWN_GROUP.read_text(encoding="utf-8").splitlines()
        if line.startswith("0::")
    ]
    group = _GROUPS / (own[0].removeprefix("0::").strip("/") if own else "")
    limits = []
    for folder in (group, *group.parents):
        limit = folder / "memory.max"
        if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()) != "max":
            limits.append(int(text))
        if folder == _GROUPS:
            break
    return limits
