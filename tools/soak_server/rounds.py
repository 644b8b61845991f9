"""Rounds of a soak: clients for some seconds, then everything is compared, then again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import griffin
from griffin.llm import LLM
from griffin.sessions import Store
from tests.support.toy_folder import write_toy
from tools.soak_server.process import Process
from tools.soak_server.talk import Talk
from tools.soak_server.visit import Visitor
from tools.soak_server.wire import Wire

ROUND = 6.0  # seconds
WARM = 5  # rounds until memory is what it stays
GROWTH = 24 << 20


def prepare(folder: Path) -> tuple[Process, LLM]:
    """Return a server that is not started yet, and the model that it serves."""
    model = write_toy(folder / "toy")
    return Process(model, folder), griffin.load(model, device="cpu")


async def visited(
    process: Process,
    clients: int,
    seconds: float,
    chance: random.Random,
    *,
    talks: list[Talk] | None = None,
    kill: bool = False,
) -> list[Visitor]:
    """Let clients come for some seconds; return them. talks: sessions that they find, dealt out.

    kill: the server is killed when the time is over, whatever it is at. Otherwise the clients come
          to their end, and every slot must be free.
    """
    loop = asyncio.get_running_loop()
    wire = Wire(process.url)
    number = chance.getrandbits(32)
    visitors = [
        Visitor(wire, random.Random(chance.getrandbits(64)), f"{number:x}-{i}")
        for i in range(clients)
    ]
    for place, talk in enumerate(talks or ()):
        visitors[place % clients].talks.append(talk)
    until = loop.time() + (seconds if not kill else 3600)
    staying = [asyncio.create_task(visitor.stay(until, rewinds=not kill)) for visitor in visitors]
    try:
        if kill:
            await asyncio.sleep(seconds)
            process.kill()
        await asyncio.gather(*staying)
        if not kill:
            await _idle(wire)
        for status, count in wire.tries.items():
            visitors[0].done[f"sent away with {status}"] += count
    finally:
        for task in staying:
            task.cancel()
        await wire.close()
    return visitors


async def _idle(wire: Wire) -> None:
    """Wait until the server has let go of those who left; AssertionError where it keeps a slot."""
    until = time.monotonic() + 20
    while True:
        about = await wire.ask("GET", "/v1/server")
        if about["slots"]["busy"] == about["waiting"] == about["running"] == 0:
            return
        assert time.monotonic() < until, f"a slot was lost: {about['slots']}"
        await asyncio.sleep(0.02)


def compared(
    visitors: list[Visitor], talks: list[Talk], process: Process, llm: LLM
) -> Counter[str]:
    """Compare everything that visitors were told with the model; return what they did, counted."""
    done: Counter[str] = Counter()
    for visitor in visitors:
        done += visitor.done
        done["answers compared"] += sum(asked.check(llm) for asked in visitor.asked)
    with Store(process.store) as store:
        done["turns compared"] += sum(talk.check(store, llm) for talk in talks)
    return done


async def _forget(process: Process, talks: list[Talk]) -> None:
    """Delete sessions, so that the disk does not fill with them."""
    wire = Wire(process.url)
    for talk in talks:
        await wire.ask("DELETE", f"/v1/sessions/{talk.name}", missing=True)
    await wire.close()


def soak(
    folder: Path, seconds: float, clients: int, seed: int, *, log: bool = False
) -> Counter[str]:
    """Play rounds for so long; return what they consisted of. AssertionError for what is wrong."""
    chance, tally = random.Random(seed), Counter[str]()
    process, llm = prepare(folder)
    with closing(process):
        process.start()
        until, first, held, rounds = time.monotonic() + seconds, 0, 0, 0
        while time.monotonic() < until or rounds <= WARM:
            visitors = asyncio.run(visited(process, clients, min(ROUND, seconds / 8), chance))
            talks = [talk for visitor in visitors for talk in visitor.talks]
            tally += compared(visitors, talks, process, llm)
            asyncio.run(_forget(process, talks))
            rounds += 1
            held = process.resident_bytes()
            first = held if rounds == WARM else first
            if log:
                print(
                    f"{rounds:4} rounds, {tally['answers compared']:,} answers,"
                    f" {held / 2**20:.1f} MiB",
                    flush=True,
                )
        assert held - first < GROWTH, f"memory grew from {first:,} to {held:,} bytes"
        assert process.stop() == 0, "it did not end well"
    _check_log(process)
    tally["bytes resident after the warm-up"], tally["bytes resident at the end"] = first, held
    return tally


def kill_often(
    folder: Path, kills: int, clients: int, seed: int, *, log: bool = False
) -> Counter[str]:
    """Kill the server so often, and look after each start what it has; return what happened."""
    chance, tally = random.Random(seed), Counter[str]()
    process, llm = prepare(folder)
    talks: list[Talk] = []
    visitors: list[Visitor] = []
    with closing(process):
        for number in range(kills):
            process.start()
            seconds = chance.uniform(0.2, 2.5)
            came = asyncio.run(visited(process, clients, seconds, chance, talks=talks, kill=True))
            talks = [talk for visitor in came for talk in visitor.talks]
            with Store(process.store) as store:
                assert store.check() == ()
                kept = sum(len(talk.kept(store)) for talk in talks)
            visitors += came
            if log:
                print(
                    f"{number + 1:4} kills, {len(talks):,} sessions of {kept:,} turns, all there",
                    flush=True,
                )
        process.start()  # and all of them go on
        visitors += asyncio.run(visited(process, clients, 1.0, chance, talks=talks))
        assert process.stop() == 0, "it did not end well"
        talks = [talk for visitor in visitors[-clients:] for talk in visitor.talks]
        tally += compared(visitors, talks, process, llm)
    _check_log(process)
    tally["kills"], tally["sessions"] = kills, len(talks)
    return tally


def _check_log(process: Process) -> None:
    """AssertionError if the server noted a failure of its own."""
    wrong = [
        line
        for line in process.log.read_text().splitlines()
        if " ERROR " in line or " 500 " in line
    ]
    assert not wrong, f"the log has {len(wrong)} failures: {wrong[:3]}"
