"""The resident memory of this process, now and at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident() -> dict[str, int]:
    """Return "resident" and "peak" in bytes; both are the peak where the system tells no other."""
    if _STATUS.is_file():
        fields = dict(
            line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line
        )
        now, peak = (int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return {"resident": now, "peak": peak}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return {"resident": most, "peak": most}


def forget_peak() -> None:
    """Let the peak begin anew at what is resident now, where the system has a way to."""
    if _STATUS.is_file():
        Path("/proc/self/clear_refs").write_text("5")
