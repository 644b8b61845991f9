"""Connections go to who has the least to do, one at a time, and none is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from griffin.server.fleet import acceptor
from griffin.server.fleet.acceptor import Acceptor


class Greeting(asyncio.Protocol):
    """Says who took the connection."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def connection_made(self, transport: Any) -> None:
        transport.write(self.name)
        transport.close()


def listener() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


async def connect(address) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    said = await reader.read()
    writer.close()
    return said


def take_turns(loads: dict[bytes, int], connections: int, together: bool = True) -> list[bytes]:
    """Return who took each of some connections, among acceptors with so much to do."""

    async def main():
        shared = listener()
        taking = [
            Acceptor([shared.dup()], lambda name=name: Greeting(name), lambda load=load: load, 64)
            for name, load in loads.items()
        ]
        address = shared.getsockname()
        if together:
            said = await asyncio.gather(*(connect(address) for _ in range(connections)))
        else:
            said = []
            for _ in range(connections):
                said.append(await connect(address))
                await asyncio.sleep(1.5 * acceptor._NEW)  # until that one is forgotten
        for one in taking:
            one.close()
            await one.wait_closed()
        shared.close()
        return said

    return asyncio.run(main())


def test_the_idle_one_takes_what_comes():
    assert take_turns({b"busy": 8, b"idle": 0}, 6, together=False) == [b"idle"] * 6
    assert take_turns({b"idle": 0, b"busy": 8}, 6, together=False) == [b"idle"] * 6


def test_a_burst_is_shared():
    said = take_turns({b"a": 0, b"b": 0}, 20)
    assert len(said) == 20 and min(said.count(b"a"), said.count(b"b")) >= 5


def test_nobody_waits_for_long_where_all_are_busy():
    assert set(take_turns({b"a": 1000}, 5)) == {b"a"}


def test_a_system_without_room_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr(acceptor, "_LATER", 0.02)
    full = iter([True, True])

    class Full(socket.socket):
        def accept(self):
            if next(full, False):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    async def main():
        shared = listener()
        taking = Acceptor([Full(fileno=shared.detach())], lambda: Greeting(b"late"), lambda: 0, 8)
        try:
            return await connect(taking.sockets[0].getsockname())
        finally:
            taking.close()

    with caplog.at_level("ERROR", "griffin.server"):
        assert asyncio.run(main()) == b"late"
    assert caplog.text.count("Too many open files") == 2


def test_closed_is_closed():
    async def main():
        shared = listener()
        address = shared.getsockname()
        taking = Acceptor([shared], lambda: Greeting(b"x"), lambda: 1, 8)
        taking.close()
        await taking.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await connect(address)

    asyncio.run(main())
