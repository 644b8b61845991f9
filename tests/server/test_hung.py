"""A step of the model that never ends: streams are told, health says so, the process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import httpx2
import openai
import pytest

from griffin.engine.watchdog import Watchdog
from griffin.server.run import FAILED, Server
from tests.support.live_server import CHAT, NAME, serving
from tests.support.toy_folder import write_toy
from tests.support.waiting import until


@pytest.fixture
def stuck(llm, monkeypatch):
    """Return (hang, release): from the first on, calls of the model do not end."""
    hang, release, trunk = threading.Event(), threading.Event(), llm.model.trunk

    def stalls(*given, **more):
        if hang.is_set():
            release.wait(60)
        return trunk(*given, **more)

    monkeypatch.setattr(llm.model, "trunk", stalls)
    yield hang, release
    release.set()


def test_a_step_that_hangs_ends_everything_with_a_reason(llm, stuck, monkeypatch, tmp_path):
    hang, _ = stuck
    stopped = threading.Event()
    monkeypatch.setattr(Server, "stop", lambda self: stopped.set())
    with serving(llm, tmp_path / "store") as live:
        client, found = live.openai(), []

        def whole(**more):
            try:
                client.chat.completions.create(**CHAT | {"model": NAME, "max_tokens": 400} | more)
            except openai.APIError as error:
                found.append(error)

        asked = {**CHAT, "model": NAME, "max_tokens": 4000}
        asked["logit_bias"] = {str(id): -100 for id in llm.stop_ids}
        stream = client.chat.completions.create(**asked, stream=True)
        next(iter(stream))
        hang.set()
        others = [
            threading.Thread(target=whole),
            threading.Thread(target=whole, kwargs={"extra_body": {"session_id": "s"}}),
        ]
        for other in others:
            other.start()
        until(lambda: len(live.service.bridge.runs) == 3)
        live.service.watchdog = watchdog = Watchdog(live.service.engine.pulse, 0.3)
        with pytest.raises(openai.APIError, match="the model hung, and this server ends"):
            list(stream)
        for other in others:
            other.join(60)
        assert [error.status_code for error in found] == [503, 503]
        assert stopped.wait(60) and live.service.hung and watchdog.limit >= 0.3
        with live.http() as http:
            assert http.get("/health").status_code == http.get("/ready").status_code == 503
            assert http.get("/health").json() == {"status": "hung"}
            refused = http.post("/v1/chat/completions", json=CHAT)
            assert refused.status_code == 503
        until(lambda: not live.service.bridge.runs)
        monkeypatch.undo()


def test_health_says_that_an_engine_broke(llm, monkeypatch):
    monkeypatch.setattr(Server, "stop", lambda self: None)
    with serving(llm) as live, live.http() as http:
        assert http.get("/health").status_code == 200
        live.service.engine._abandon(RuntimeError("a step was torn"))
        reply = http.get("/health")
        assert reply.status_code == 503 and reply.json() == {"status": "broken"}
        monkeypatch.undo()


_PROGRAM = """
import sys, threading
import torch
from griffin.engine.core import Core
from griffin.model import Griffin
trunk, expire = Griffin.trunk, Core.expire
def stalls(self, tokens, *given, **more):
    if tokens.shape[1] == 13:
        threading.Event().wait()
    if tokens.shape[1] == 12:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return trunk(self, tokens, *given, **more)
def tears(self, now):
    expire(self, now)
    if any(ticket.prompt_tokens == 11 for ticket, _ in self.live.values()):
        raise RuntimeError("a step was torn")
Griffin.trunk, Core.expire = stalls, tears
from griffin.cli import main
main()
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("ids", "told", "logged"),
    [
        (13, "the model hung", "a step of the model has not ended"),
        (12, "server_error", "the engine broke"),  # a device that is lost, not a row's own error
        (11, "server_error", "the engine broke"),
    ],
)
def test_the_process_ends_with_an_error(tmp_path, ids, told, logged):
    """There is no supervisor here; whoever started it sees the exit code."""
    model = write_toy(tmp_path / "toy")
    command = [sys.executable, "-c", _PROGRAM, "serve", "--model", model, "--port", "0"]
    command += ["--no-store", "--no-cache", "--chunk", "64", "--hang-seconds", "0.5"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    try:
        url = ""
        while not url:
            line = process.stderr.readline()
            assert line, "it did not start"
            url = line.split(" at ")[1].split(",")[0] if line.startswith("griffin serves") else ""
        body = {"prompt": [5] * ids, "max_tokens": 2, "stream": True}
        with httpx2.Client(base_url=url, timeout=60) as http:
            begun = http.post("/v1/completions", json=body)
        assert told in begun.text or begun.status_code == 503
        assert process.wait(60) == FAILED
        assert logged in process.stderr.read()
    finally:
        process.kill()
        process.wait()


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_replica_whose_loop_hangs_is_replaced(tmp_path):
    """It says nothing any more, and its supervisor kills it."""
    model = write_toy(tmp_path / "toy")
    code = (
        "from griffin.server.fleet import supervisor as s; s._SILENT = 6.0; s._STRIDE = 0.5;"
        " from griffin.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "serve", "--model", model, "--port", "0"]
    command += ["--no-store", "--no-cache", "--replicas", "2", "--threads", "1"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))
    reader.start()
    try:
        until(lambda: sum(" serves (process " in line for line in lines) == 2, seconds=90)
        pid = next(int(x.split("(process ")[1].split(")")[0]) for x in lines if "replica 2" in x)
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
        until(lambda: any("replica 2 hangs and is killed" in x for x in lines), seconds=90)
        until(lambda: sum("replica 2 of 2 serves" in x for x in lines) == 2, seconds=90)
        assert not any("replica 1 hangs" in x for x in lines)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join(60)
