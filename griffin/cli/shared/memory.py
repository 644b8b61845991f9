"""Whether a machine has the memory for several replicas, told before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from griffin.cli.shared.sizes import binary

if TYPE_CHECKING:
    from griffin.cli.shared.model_source import ModelSource

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def check_memory(
    replicas: int, source: ModelSource, *, slots: int, chunk: int, cache_bytes: int
) -> None:
    """Raise ValueError if so many processes, each with model and slots, do not fit in memory.

    On a GPU it is the GPU's memory that counts. No weights are read.
    """
    import torch

    from griffin.capacity import model_bytes, plan
    from griffin.cli.shared.adapters import adapter_facts
    from griffin.cli.shared.spec import spec_of

    spec, device = spec_of(source), source.device
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    there = (
        torch.cuda.get_device_properties(device or "cuda").total_memory
        if on_gpu
        else memory_bytes()
    )
    added = adapter_facts(source.adapters, spec.config, spec.dtype)
    weights = model_bytes(spec.config, spec.dtype, spec.format) + sum(a["bytes"] for a in added)
    each = plan(
        spec.config,
        ram_bytes=1 << 62,
        dtype=spec.dtype,
        format=spec.format,
        slots=slots,
        chunk=chunk,
        prefix_cache_bytes=cache_bytes,
        weight_bytes=weights,
    )
    if replicas * each.total_bytes > there:
        fit = there // each.total_bytes
        whole, one = binary(replicas * each.total_bytes), binary(each.total_bytes)
        raise ValueError(
            f"{replicas} replicas take up to {whole}, {one} each: {binary(each.weight_bytes)} of"
            f" weights, {binary(each.live_bytes)} of states, {binary(cache_bytes)} of prefix cache,"
            f" ...; there are {binary(there)}, enough for {fit}. Ask for fewer --replicas or"
            " --slots, or a smaller --cache-bytes; `griffin plan` shows the parts"
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
