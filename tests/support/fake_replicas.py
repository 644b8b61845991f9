"""Replicas without a model, for tests of what supervises them.

    python -m tests.support.fake_replicas ...

    supervise COUNT BEHAVIOUR [GRACE]   a Supervisor of so many; it prints the address it listens at
    replica CONFIG BEHAVIOUR            one of them, started by it

BEHAVIOUR: "serve" answers each connection with the process's id, and takes half a second to end;
"fail" ends at once with exit code 2; "deaf" does not end when asked to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from griffin.server.fleet import supervisor
from griffin.server.fleet.replica import Link, ReplicaConfig
from griffin.server.fleet.supervisor import Supervisor
from griffin.server.http.sockets import bound, url_of
from griffin.server.logs import log_to_stderr


def tell(*words: object) -> None:
    """Write a line in one piece: several processes write to the same file."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def supervise(count: int, behaviour: str, grace: float = 10.0) -> int:
    supervisor._GRACE = grace
    log_to_stderr()
    listeners = bound("127.0.0.1", 0, None)

    def command(config: ReplicaConfig) -> list[str]:
        return [sys.executable, "-m", __spec__.name, "replica", config.to_json(), behaviour]

    where = url_of(listeners[0])
    kept = Supervisor(
        count, command, listeners, drain_seconds=0.1, announce=lambda: tell("at", where)
    )
    return kept.run()


def replica(config: ReplicaConfig, behaviour: str) -> None:
    link = Link(config)
    tell("replica", config.number, os.getpid())
    if behaviour == "fail":
        sys.exit(2)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    [listener] = config.sockets()
    ending = threading.Event()

    def end(sig: int, frame: object) -> None:
        tell("told", config.number, signal.Signals(sig).name)
        ending.set()

    if behaviour == "serve":
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
    listener.listen(16)
    listener.settimeout(0.02)
    link.ready()
    while not ending.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.sendall(str(os.getpid()).encode())
    listener.close()
    time.sleep(0.5)
    tell("ended", config.number)


if __name__ == "__main__":
    if sys.argv[1] == "supervise":
        sys.exit(supervise(int(sys.argv[2]), sys.argv[3], *map(float, sys.argv[4:])))
    replica(ReplicaConfig.from_json(sys.argv[2]), sys.argv[3])
