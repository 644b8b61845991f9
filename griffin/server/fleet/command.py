"""The command that starts a replica: this same `griffin`, with a share of the cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from griffin.server.fleet.replica import ReplicaConfig


def replica_command(
    arguments: Sequence[str], threads: int | None = None
) -> Callable[[ReplicaConfig], list[str]]:
    """Return what makes the command of a replica.

    arguments: those of the command that starts them all. threads: of each; a share of the cores if
               None.
    """

    def command(config: ReplicaConfig) -> list[str]:
        own = threads or share(cores(), config.of, config.number)
        more = ["--threads", str(own), "--replica-config", config.to_json()]
        return ourselves([*arguments, *more])

    return command


def ourselves(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs this same `griffin` with other arguments.

    Nothing is looked for in the current folder, which others may write to.
    """
    root = str(Path(__file__).parents[3])
    code = f"import sys; sys.path[:0] = [] if {root!r} in sys.path else [{root!r}]; "
    return [sys.executable, "-P", "-c", code + "from griffin.cli import main; main()", *arguments]


def share(cores: int, replicas: int, number: int) -> int:
    """Return a replica's share of the cores, at least one; the first ones get the remainder."""
    return max(1, cores // replicas + (number <= cores % replicas))


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
