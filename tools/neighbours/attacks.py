"""What one key does to take all of a server: `python -m tools.neighbours.attacks NAME URL KEY S`.

A process of its own at nice 10, on the same cores. Whatever it is told (429, 503, a closed
connection) it tries again at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

NICE = 10
_PAUSE = 0.02  # seconds after which one that was sent away comes again
_TEXT = 7_800_000  # characters: a body is 8 MiB at most


class Attacker:
    """Requests of one key, as raw as a client may send them. told: statuses, counted."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._where = parts.hostname, parts.port
        self._key = key
        self.told: Counter[str] = Counter()

    def head(self, method: str, path: str, length: int = 0, *, key: bool = True) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
        lines += [f"content-length: {length}"] * (length > 0)
        lines += [f"authorization: Bearer {self._key}"] * key
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._where)

    async def send(self, path: str, body: bytes) -> None:
        """Send a request on a connection of its own, and read all that comes."""
        reader, writer = await self.connect()
        try:
            writer.write(self.head("POST", path, len(body)) + body)
            status = await reader.readline()
            self.told[status.decode().split(" ")[1] if status else "closed"] += 1
            while await reader.read(1 << 16):
                if reader.at_eof():
                    break
        finally:
            writer.close()

    async def flood(self, path: str, bodies: Callable[[int], bytes], at_once: int) -> None:
        """Send requests for ever, so many at once."""

        async def one(number: int) -> None:
            while True:
                with suppress(OSError):
                    await asyncio.wait_for(self.send(path, bodies(number)), 20)
                number += at_once
                await asyncio.sleep(_PAUSE)

        await asyncio.gather(*map(one, range(at_once)))

    async def idle(self, count: int, *, key: bool) -> None:
        """Hold so many connections that have asked once; those that are closed come again."""

        async def one() -> None:
            while True:
                with suppress(OSError):
                    reader, writer = await self.connect()
                    try:
                        path = "/v1/models" if key else "/health"
                        writer.write(self.head("GET", path, key=key))
                        status = await reader.readline()
                        self.told[status.decode().split(" ")[1] if status else "closed"] += 1
                        while await reader.read(4096):
                            pass
                    finally:
                        writer.close()
                await asyncio.sleep(0.5)

        await asyncio.gather(*(one() for _ in range(count)))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _chat(text: str = "x", **more: Any) -> bytes:
    return _json({"messages": [{"role": "user", "content": text}], **more})


async def long_texts(attacker: Attacker) -> None:
    """Texts of 7.8 MB, to be turned into ids and in chats."""
    text = ("some words, and more of them. " * (_TEXT // 30))[:_TEXT]
    tokenize, chat = (
        _json({"prompt": text}),
        _json({"messages": [{"role": "user", "content": text}]}),
    )
    await asyncio.gather(
        attacker.flood("/tokenize", lambda _: tokenize, 4),
        attacker.flood("/v1/chat/completions", lambda _: chat, 4),
    )


async def streams(attacker: Attacker) -> None:
    """90 answers without an end."""
    bias = {str(id): -100 for id in range(10)}
    body = _chat(max_tokens=30_000, stream=True, logit_bias=bias)
    await attacker.flood("/v1/chat/completions", lambda _: body, 90)


async def prompts(attacker: Attacker) -> None:
    """Prompts of 200,000 ids."""
    bodies = [_json({"prompt": [20 + (n + i) % 200 for i in range(200_000)]}) for n in range(16)]
    await attacker.flood("/v1/completions", lambda n: bodies[n % 16], 16)


async def bodies(attacker: Attacker) -> None:
    """33 bodies of 8 MB that never end."""

    async def one() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await attacker.connect()
                try:
                    head = attacker.head("POST", "/v1/chat/completions", 8_000_000)
                    writer.write(head + b"{" + b" " * 7_900_000)
                    status = await asyncio.wait_for(reader.readline(), 40)
                    attacker.told[status.decode().split(" ")[1] if status else "closed"] += 1
                finally:
                    writer.close()
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(*(one() for _ in range(33)))


async def grammars(attacker: Attacker) -> None:
    """24 requests with 128 heavy tools, each time other ones."""

    def body(number: int) -> bytes:
        def tool(n: int) -> dict[str, Any]:
            names = {f"p{number}_{n}_{i}": {"type": "string"} for i in range(35)}
            parameters = {"type": "object", "properties": names}
            return {"type": "function", "function": {"name": f"f{n}", "parameters": parameters}}

        return _chat(max_tokens=1, tools=[tool(n) for n in range(128)])

    await attacker.flood("/v1/chat/completions", body, 24)


async def scores(attacker: Attacker) -> None:
    """Prompts measured with 20 alternatives a token: as many as may be, and a million ids."""
    ids = [20 + i % 200 for i in range(1_000_000)]
    asked = {"max_tokens": 0, "echo": True, "logprobs": 20}
    most, many = _json({**asked, "prompt": ids[:49_000]}), _json({**asked, "prompt": ids})
    await asyncio.gather(
        attacker.flood("/v1/completions", lambda _: most, 8),
        attacker.flood("/v1/completions", lambda _: many, 2),
    )


async def alternatives(attacker: Attacker) -> None:
    """Streams and whole answers with 20 alternatives a token."""
    bias = {str(id): -100 for id in range(10)}
    asked = {"logprobs": True, "top_logprobs": 20, "logit_bias": bias}
    stream = _chat(max_tokens=30_000, stream=True, n=4, **asked)
    whole = _chat(max_tokens=6_000, n=8, **asked)
    await asyncio.gather(
        attacker.flood("/v1/chat/completions", lambda _: stream, 4),
        attacker.flood("/v1/chat/completions", lambda _: whole, 2),
    )


async def shapes(attacker: Attacker) -> None:
    """JSON that is heavy to count and to read."""
    junk = [
        b",".join([b'{"a":1}'] * 200_000),
        b",".join([b"[[]]"] * 120_000),
        b",".join([b'"x\\\\\\",["'] * 400_000),
    ]
    made = [b'{"prompt":"x","max_tokens":1,"junk":[' + part + b"]}" for part in junk]
    await attacker.flood("/v1/completions", lambda n: made[n % 3], 8)


async def strangers(attacker: Attacker) -> None:
    """1,100 idle connections without a key."""
    await attacker.idle(1100, key=False)


async def connections(attacker: Attacker) -> None:
    """1,100 idle connections with a key."""
    await attacker.idle(1100, key=True)


ATTACKS: dict[str, Callable[[Attacker], Awaitable[None]]] = {
    attack.__name__: attack
    for attack in (
        *(long_texts, streams, prompts, bodies, grammars),
        *(scores, alternatives, shapes, strangers, connections),
    )
}


async def attack(name: str, url: str, key: str, seconds: float) -> Counter[str]:
    """Attack for so long; return what was told."""
    attacker = Attacker(url, key)
    with suppress(TimeoutError):
        await asyncio.wait_for(ATTACKS[name](attacker), seconds)
    return attacker.told


if __name__ == "__main__":
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1 << 16), most))
    os.nice(NICE)
    told = asyncio.run(attack(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
    print(json.dumps(told))
