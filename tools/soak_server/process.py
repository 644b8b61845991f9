"""`griffin serve` as a process of its own, to be looked at, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SLOTS, CHUNK = 8, 64


class Process:
    """A server of a model's folder.

    store: its folder of sessions. url: where it listens; the same after each start. log: what it
           wrote.
    """

    def __init__(self, model: Path, folder: Path, *options: object) -> None:
        self.model = model
        self.store = folder / "store"
        self.log = folder / "server.log"
        self.url = ""
        self._port = 0
        self._options = [str(option) for option in options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 300.0) -> None:
        """Start, and wait until it listens."""
        command = [
            *(
                sys.executable,
                "-c",
                "import griffin.cli as c; c.main()",
                "serve",
                "--model",
                self.model,
            ),
            *("--store", self.store, "--port", self._port, "--slots", SLOTS, "--chunk", CHUNK),
            *("--threads", 1, "--cache-bytes", "8M", *self._options),
        ]
        told = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        until = time.monotonic() + seconds
        while True:
            said = self.log.read_bytes()[told:].decode()
            if line := next(
                (line for line in said.splitlines() if line.startswith("griffin serves ")), ""
            ):
                break
            assert self._process.poll() is None and time.monotonic() < until, (
                f"it did not start: {said}"
            )
            time.sleep(0.02)
        self.url = line.split(" at ")[1].split(",")[0]
        self._port = int(self.url.rpartition(":")[2])

    def resident_bytes(self) -> int:
        """Return what it holds in memory (Linux)."""
        return 4096 * int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def close(self) -> None:
        """End it if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
