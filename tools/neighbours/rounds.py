"""Rounds: what the other key waits for while all is calm, and during each attack."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tools.neighbours.attacks import ATTACKS
from tools.soak_server.process import Process

ATTACKER, OTHER = "attacker-key-0123456789", "neighbour-key-0123456789"
TIMES, MORE = 3.0, 0.25  # the other's latency: so many times its calm value, and so many seconds
CALM = 10.0  # seconds
# Bytes beyond those resident after the start: docs/serving.md, Memory.
WITHIN = {"during": 512 << 20, "after": 320 << 20}
_PAUSE = 0.05


@dataclass
class Waited:
    """What one key was told: seconds by kind of request, statuses that are no 200."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    def typical(self, kind: str) -> float:
        """Return what 19 of 20 requests of a kind did not exceed."""
        times = self.seconds[kind]
        return statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]


@dataclass
class Found:
    """What an attack did. latency: seconds, (calm, attacked), by kind of request."""

    attack: str
    latency: dict[str, tuple[float, float]]
    requests: int
    refused: list[int]
    told: dict[str, int]
    peak: int
    after: int
    descriptors: int
    wrong: list[str] = field(default_factory=list)


async def other(url: str, seconds: float) -> Waited:
    """Ask for small things, one after another, as somebody does who knows of no attack."""
    waited = Waited()
    until = time.monotonic() + seconds
    chat = {"messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 16, "seed": 1}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    scores = {"prompt": "x y", "max_tokens": 0, "echo": True, "logprobs": 1}
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/v1/chat/completions", chat),
        "form": ("/v1/chat/completions", {**chat, "max_tokens": 4, "response_format": form}),
        "tokens": ("/tokenize", {"prompt": "some words " * 400}),
        "scores": ("/v1/completions", scores),
        "session": ("/v1/chat/completions", {**chat, "max_tokens": 4, "session_id": "neighbour"}),
    }
    headers = {"authorization": f"Bearer {OTHER}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=120) as http:
        while time.monotonic() < until:
            for kind, (path, body) in requests.items():
                begun = time.perf_counter()
                try:
                    status = (await http.post(path, json=body)).status_code
                except httpx2.TransportError:
                    status = 0
                waited.seconds.setdefault(kind, []).append(time.perf_counter() - begun)
                if status != 200:
                    waited.refused.append(status)
                await asyncio.sleep(_PAUSE)
    return waited


class Watch:
    """What a process holds. peak: bytes resident at most since `begin`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.peak = 0

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    async def look(self) -> None:
        """Note the peak, until cancelled."""
        self.peak = 0
        while True:
            self.peak = max(self.peak, self._process.resident_bytes())
            await asyncio.sleep(0.1)


async def calm(url: str, watch: Watch, descriptors: int, seconds: float = 60) -> list[str]:
    """Wait until everything is given back; return what is not."""
    until = time.monotonic() + seconds
    headers = {"authorization": f"Bearer {OTHER}"}
    while True:
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            about = (await http.get("/v1/server")).json()
        await asyncio.sleep(0.2)
        left = {
            "slots": about["slots"]["busy"],
            "waiting": about["waiting"],
            "kept states": about["bytes"]["kept"],
            "descriptors": max(0, watch.descriptors() - descriptors),
        }
        wrong = [f"{count} {what} are not given back" for what, count in left.items() if count]
        if not wrong or time.monotonic() > until:
            return wrong


async def attacked(
    name: str, process: Process, seconds: float, before: Waited, base: int, files: int
) -> Found:
    """Let one key attack for so long, and tell what became of the other."""
    watch = Watch(process)
    command = [sys.executable, "-m", "tools.neighbours.attacks", name, process.url, ATTACKER]
    attacker = subprocess.Popen([*command, str(seconds + 4)], stdout=subprocess.PIPE)
    looking = asyncio.create_task(watch.look())
    try:
        await asyncio.sleep(4)  # it prepares, and takes what it can get
        waited = await other(process.url, seconds)
        said, _ = await asyncio.to_thread(attacker.communicate, timeout=120)
    finally:
        attacker.kill()
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
    left = await calm(process.url, watch, files)
    await asyncio.sleep(3)  # free memory is given back a moment later
    after = process.resident_bytes()
    latency = {kind: (before.typical(kind), waited.typical(kind)) for kind in waited.seconds}
    wrong = [
        f"{kind} took {1000 * now:.0f} ms, {1000 * then:.0f} ms when it was calm"
        for kind, (then, now) in latency.items()
        if now > TIMES * then + MORE
    ]
    wrong += [f"the other was told {status}" for status in sorted(set(waited.refused))] + left
    for when, held in (("during", watch.peak), ("after", after)):
        if held - base > WITHIN[when]:
            wrong.append(f"{(held - base) >> 20} MiB more {when} the attack")
    requests = sum(map(len, waited.seconds.values()))
    told = json.loads(said or b"{}")
    return Found(
        name, latency, requests, waited.refused, told, watch.peak, after, watch.descriptors(), wrong
    )


def play(
    folder: Path, model: Path | str, names: Sequence[str], seconds: float, *, log: bool = False
) -> tuple[int, list[Found]]:
    """Play attacks one by one; return the bytes resident before, and what each did."""
    keys = folder / "keys"
    keys.write_text(f"{ATTACKER}\n{OTHER}\n")
    keys.chmod(0o600)
    process = Process(Path(model), folder, "--key-file", keys)
    found: list[Found] = []
    with closing(process):
        process.start()
        asyncio.run(other(process.url, 3))  # whatever is prepared once
        watch = Watch(process)
        asyncio.run(calm(process.url, watch, 1 << 20))
        files, base = watch.descriptors() + 4, process.resident_bytes()
        for name in names:
            assert name in ATTACKS, f"{name} is none of {', '.join(ATTACKS)}"
            before = asyncio.run(other(process.url, min(CALM, seconds)))
            one = asyncio.run(attacked(name, process, seconds, before, base, files))
            found.append(one)
            if log:
                print(row(one, base), flush=True)
        assert process.stop() == 0, "it did not end well"
    return base, found


def row(found: Found, base: int) -> str:
    """Return a line of the table."""
    times = "  ".join(f"{1000 * a:5.0f} {1000 * b:6.0f}" for a, b in found.latency.values())
    held = f"{(found.peak - base) >> 20:5} {(found.after - base) >> 20:5}"
    told = " ".join(f"{status}:{count}" for status, count in sorted(found.told.items()))
    return f"{found.attack:13}{times}  {held}  {found.requests:5}  {told:28} " + (
        "; ".join(found.wrong) or "ok"
    )


def report(base: int, found: Sequence[Found], seconds: float) -> dict[str, Any]:
    """Return what was found as plain values."""
    return {
        "seconds": seconds,
        "resident_bytes": base,
        "within": {"times": TIMES, "seconds": MORE, **WITHIN},
        "attacks": [asdict(one) for one in found],
    }
