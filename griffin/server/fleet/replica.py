"""What a replica is told by its supervisor, and the line that binds the two."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

READY = b"r"  # what a replica says to its supervisor when it serves
ALIVE = b"a"  # and every second from then on


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """One of several processes: handed over on its command line; sockets are inherited by number.

    number, of: which one of how many, from 1.
    first:      none has been ready yet, so it checks what all of them need.
    listeners:  sockets to accept from, shared by all.
    link:       to the supervisor.
    folder:     of the sockets by which replicas ask each other; closed to other users.
    """

    number: int
    of: int
    first: bool
    listeners: tuple[int, ...]
    link: int
    folder: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ReplicaConfig:
        fields = json.loads(text)
        return cls(**{**fields, "listeners": tuple(fields["listeners"])})

    def socket_of(self, number: int) -> Path:
        """Return the path of the socket by which a replica is asked."""
        return Path(self.folder) / f"{number}.sock"

    def sockets(self) -> list[socket.socket]:
        """Return the sockets to accept from."""
        return [socket.socket(fileno=number) for number in self.listeners]


class Link:
    """The line to the supervisor: when that dies, however it does, so does this process.

    Nothing else tells: a process whose parent was killed lives on, and would keep the address.
    """

    def __init__(self, config: ReplicaConfig) -> None:
        self._config = config
        self._line = socket.socket(fileno=config.link)
        threading.Thread(target=self._watch, name="griffin-link", daemon=True).start()

    def ready(self) -> None:
        """Tell the supervisor that requests are taken."""
        # It is gone; the other thread ends this process.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._line.sendall(READY)

    def beat(self) -> None:
        """Tell the supervisor that this process still does its rounds."""
        with suppress(OSError):  # it is gone, or does not listen
            self._line.send(ALIVE, socket.MSG_DONTWAIT)

    def _watch(self) -> None:
        with suppress(OSError):
            while self._line.recv(1):
                pass
        config = self._config
        with suppress(OSError):  # the last of the replicas to go finds the folder empty
            config.socket_of(config.number).unlink(missing_ok=True)
            Path(config.folder).rmdir()
        os._exit(1)
