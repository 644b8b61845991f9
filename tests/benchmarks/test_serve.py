"""`python -m benchmarks serve`: the server beside its engine."""

from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks.asking import Connection, ask_all
from tests.benchmarks.test_command import run

QUICK = ("--threads", 1, "--rounds", 2, "--tokens", 4, "--requests", 2, "--prompt", 12)


@pytest.mark.thorough
def test_the_server_beside_its_engine(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # its process is told where benchmarks/ is
    out = tmp_path / "report.json"
    result = run(
        "serve", "--model", folder, "--clients", 1, "--clients", 3, *QUICK, "--json", "--out", out
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["what"], row["program"], row["batch"]) for row in rows] == [
        ("serve, first token", "engine", 1),
        ("serve, first token", "server", 1),
        ("serve, next token", "engine", 1),
        ("serve, next token", "server", 1),
        ("serve, requests", "engine", 1),
        ("serve, requests", "server", 1),
        ("serve, requests", "engine", 3),
        ("serve, requests", "server", 3),
    ]
    for engine, server in zip(rows[::2], rows[1::2], strict=True):
        assert engine["limit_tokens_per_second"] is None and len(server["samples"]) == 2
        assert server["limit_tokens_per_second"] == engine["tokens_per_second"]
        assert server["ratio"] == pytest.approx(
            server["tokens_per_second"] / engine["tokens_per_second"]
        )
        assert server["seconds"] > 0 and server["context"] >= 8 and server["resident_bytes"]
    assert "the server adds" in result.stderr and json.loads(out.read_text())["notes"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "refused: HTTP/1.1 503"),
        (b'HTTP/1.1 200 OK\r\n\r\n12\r\ndata: {"error": 1}\r\n0\r\n\r\n', "broke off"),
        (b'HTTP/1.1 200 OK\r\n\r\nA\r\ndata: {"a"\r\n0\r\n\r\n', "without its end"),
    ],
)
def test_an_answer_that_is_none_is_no_measurement(answer, said):
    async def go():
        async def reply(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

        async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
            connection = Connection(*server.sockets[0].getsockname())
            await connection.open()
            with pytest.raises(RuntimeError, match=said):
                await ask_all([connection], ["x"], 2, {})
            await connection.close()

    asyncio.run(go())
