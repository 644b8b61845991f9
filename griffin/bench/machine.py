"""Where a run happened: what a reader needs to know before comparing its figures with any other."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from griffin.ops import native

_LIBRARIES = ("torch", "numpy")


def cores() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_cache_bytes() -> int:
    """Return the size of the last cache, 0 where the system does not tell it."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        digits = path.read_text(encoding="ascii").strip().removesuffix("K")
        sizes.append(int(digits) << 10 if digits.isdecimal() else 0)
    return max(sizes)


def buffer_bytes() -> int:
    """Return the bytes to measure the read rate over: eight times the caches, at least 1 GiB.

    At most a fifth of the machine's memory, beyond 1 GiB. A server's cache of 480 MB still answers
    a part of the reads of 1 GiB.
    """
    return max(1 << 30, min(8 * last_cache_bytes(), (_memory_bytes() or 0) // 5))


def _memory_bytes() -> int | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def describe(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return processor, kernels, cores, memory, system, versions, and time and load at the start.

    packages: whose versions count besides those of every run, as pip is asked for them.
    """
    versions = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *packages):
        name = name.partition("[")[0]
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # what is not installed has no version
    found: dict[str, Any] = {
        "processor": _processor(),
        "kernels": native.module().instruction_set() if native.built() else "none",
        "cores": cores(),
        "last_cache_bytes": last_cache_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "versions": versions,
    }
    if hasattr(os, "getloadavg"):
        found["load_average"] = round(os.getloadavg()[0], 2)
    if (memory := _memory_bytes()) is not None:
        found["memory_bytes"] = memory
    return found


def command() -> str:
    """Return the command line this process was called with, as one would type it again."""
    program = Path(sys.argv[0])
    name = ["python", "-m", program.parent.name] if program.stem == "__main__" else [program.stem]
    return shlex.join([*name, *sys.argv[1:]])


def commit() -> str | None:
    """Return this tree's short commit, "+" added if files differ from it; None without git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    name = git("rev-parse", "--short", "HEAD")
    if not name or git("ls-files", "--error-unmatch", __file__) is None:
        return None  # an installed package, perhaps inside another project's repository
    return name + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
