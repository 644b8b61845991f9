"""What a folder is mounted from (Linux's mount table), and whether sessions can lie there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from griffin.sessions.index import Journal

_TABLE = Path("/proc/self/mountinfo")
_NETWORK = {
    *(
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
    ),
    *("ocfs2", "orangefs", "smb3", "smbfs", "virtiofs"),
    *(
        "fuse.ceph-fuse",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.rclone",
        "fuse.s3fs",
    ),
    "fuse.sshfs",
}
# Options, and file systems, whose locks are seen by the machine that takes them and by no other.
_LOCAL_LOCKS = {
    "nolock",
    "local_lock=all",
    "local_lock=flock",
    "local_lock=posix",
    "nobrl",
    "localflock",
}
_WITHOUT_LOCKS = {"fuse.gcsfuse", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A line of the mount table: where, which file system ("nfs4"), and all its options."""

    point: Path
    kind: str
    options: frozenset[str]


def mount_of(folder: Path, table: str | None = None) -> Mount | None:
    """Return what a folder is mounted from; None where the system does not tell.

    table: lines as in /proc/self/mountinfo, the system's if omitted.
    """
    if table is None:
        try:
            table = _TABLE.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:  # not Linux, or a closed /proc
            return None
    place, found = folder.resolve(), None
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        if len(before := left.split()) < 6 or len(after := right.split()) < 3:
            continue
        point = Path(_plain(before[4]))
        # Of two at one point the later one lies on top.
        if place.is_relative_to(point) and (
            found is None or len(point.parts) >= len(found.point.parts)
        ):
            options = frozenset([*before[5].split(","), *after[2].split(",")])
            found = Mount(point=point, kind=after[0], options=options)
    return found


def check_place(folder: Path, journal: Journal, mount: Mount | None) -> None:
    """Raise ValueError for a folder on which a store with this journal is not safe."""
    if mount is None or mount.kind not in _NETWORK:
        return
    if journal == "WAL":
        raise ValueError(
            f"{folder} is on a network ({mount.kind}), where sqlite's write-ahead log does not"
            " hold; use a local folder, or Store(network=True), which is `griffin serve"
            " --store-network`"
        )
    blind = sorted(_LOCAL_LOCKS & mount.options) or (
        [mount.kind] if mount.kind in _WITHOUT_LOCKS else []
    )
    if blind:
        raise ValueError(
            f"{folder} is on a network ({mount.kind}) where others see no lock of ours"
            f" ({', '.join(blind)}): two could write one session; mount it with locks, or use"
            " another folder"
        )


def _plain(escaped: str) -> str:
    """Undo the table's way of writing blanks: a backslash and three octal digits."""
    head, *rest = escaped.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
