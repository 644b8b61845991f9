"""File descriptors: how many a process may have, and what it says when it has none left."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from griffin.server.http.crowd import GUESTS

log = logging.getLogger("griffin.server")

KEPT_BACK = 64  # for sessions, leases, other replicas, whatever is imported late
_OWN = Path("/proc/self/fd")
_NO_ROOM = (errno.EMFILE, errno.ENFILE)


def room_for(connections: int) -> int:
    """Return for how many connections there are descriptors, at most as many as asked for.

    The soft limit is raised, if need be, as far as the hard one allows. Raises ValueError where
    there would be none.
    """
    try:
        import resource
    except ImportError:  # another kind of system
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    beside = GUESTS + KEPT_BACK + (len(list(_OWN.iterdir())) if _OWN.is_dir() else KEPT_BACK)
    needed = connections + beside
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft <= beside:
        raise ValueError(
            f"this process may open {soft} files (ulimit -n), {beside} of which are needed beside"
            " connections; allow it some hundreds"
        )
    if soft < needed:
        log.warning(
            "%d connections at a time instead of %d: this process may open %d files (ulimit -n)",
            soft - beside,
            connections,
            soft,
        )
    return min(connections, soft - beside)


def is_exhausted(error: BaseException | None) -> bool:
    """Return whether an error comes from having no descriptors left."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        if getattr(error, "sqlite_errorname", "") == "SQLITE_CANTOPEN":
            return True
        error = error.__cause__ or error.__context__
    return False
