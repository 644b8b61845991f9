"""The devices of this machine as a command line names them, and the memory of each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Memory:
    """A memory that models lie in: what people call it, and bytes of it that are free.

    total: bytes in all, where others may have some of them; 0 where that is not looked at.
    """

    name: str
    nbytes: int
    total: int = 0


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
    free, total = torch.cuda.mem_get_info(index)
    return Memory(f"cuda:{index} ({torch.cuda.get_device_name(index)})", free, total)


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
