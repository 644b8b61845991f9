"""Several processes over one folder: those of `griffin serve --replicas`, and those of several
machines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import griffin
from griffin.conversation import Conversation, begin
from griffin.llm import LLM
from griffin.sessions import Store
from tests.support.toy_adapters import write_adapter
from tests.support.waiting import lives, until

SAID = [f"message {number}" for number in range(6)]


class Served:
    """A `griffin serve` of the toy. url: where. log: what it said so far."""

    def __init__(self, folder: Path, log: Path, *arguments: object) -> None:
        self._log = log
        command = [
            sys.executable,
            "-c",
            "import griffin.cli as c; c.main()",
            "serve",
            "--model",
            folder,
        ]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(part) for part in (*command, "--slots", "2", "--threads", "1", *arguments)],
                stdout=out,
                stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        until(lambda: "griffin serves" in self.log or self.process.poll() is not None)
        found = re.search(r"griffin serves toy(?:, \w+)* at (\S+),", self.log)
        assert found is not None, self.log
        self.url = found[1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def pids(self) -> dict[str, int]:
        """Return the process of each replica, by its number."""
        found = re.findall(r"replica (\d+) of \d+ serves \(process (\d+)\)", self.log)
        return {number: int(pid) for number, pid in found}

    def say(self, content: str, session: str = "s", **fields: Any) -> tuple[str, str]:
        """Say something on a connection of its own; return the answer and the replica that gave
        it."""
        body = {"messages": [{"role": "user", "content": content}], "session_id": session}
        body |= {"max_tokens": 6, "seed": 1} | fields
        until(lambda: (reply := self.post(body)).status_code != 409 or not time.sleep(0.05))
        reply = self.last
        assert reply.status_code == 200, reply.text
        text = reply.json()["choices"][0]["message"]["content"]
        return text, reply.headers.get("x-griffin-replica", "")

    def post(self, body: dict[str, Any]) -> httpx2.Response:
        self.last = httpx2.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)
        return self.last

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", timeout=60)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log
        assert "Traceback" not in self.log


@pytest.fixture
def serve(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def start(*arguments: object) -> Served:
        log = tmp_path / f"log{len(made)}"
        made.append(Served(folder, log, "--port", "0", "--store", tmp_path / "kept", *arguments))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return griffin.load(folder, device="cpu")


def talk(llm: LLM, *messages: str) -> list[str]:
    """Return what one process answers, in one conversation."""
    conversation = Conversation(llm, begin(llm, None), sampling={"max_tokens": 6, "seed": 1})
    return ["".join(conversation.say(message)) for message in messages]


def interrupted(url: str, llm: LLM, kill: Callable[[str], None], session: str = "s") -> None:
    """Begin an answer without end in a session, and kill who gives it when its first words are
    there."""
    body = {
        "messages": [{"role": "user", "content": "and then?"}],
        "session_id": session,
        "stream": True,
        "max_tokens": 30_000,
        "logit_bias": {str(id): -100 for id in llm.stop_ids},
    }
    with (
        pytest.raises(httpx2.TransportError),
        httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as stream,
    ):
        lines = stream.iter_lines()
        while '"content":""' in next(lines):
            pass
        kill(stream.headers.get("x-griffin-replica", ""))
        for _ in lines:
            pass


@pytest.mark.slow
def test_replicas_share_sessions_and_one_is_killed(serve, llm, tmp_path):
    server = serve("--replicas", "2")
    assert "2 replicas of 2 slots" in server.log
    until(lambda: len(server.pids()) == 2)
    # A session moves between them from one message to the next: bit for bit what one process says.
    answers = [server.say(message) for message in SAID]
    assert [text for text, _ in answers] == talk(llm, *SAID)
    until(lambda: {server.say(f"x{time.monotonic()}", "other")[1] for _ in range(4)} == {"1", "2"})

    shown = server.get("/v1/server").json()
    assert [one["up"] for one in shown["replicas"]] == [True, True] and shown["slots"]["total"] == 4
    asked = {server.get("/v1/server").json()["replica"] for _ in range(6)}
    assert asked <= {1, 2}
    counts = re.findall(
        r'griffin_requests_total{code="none",endpoint="POST /v1/chat/completions",'
        r'finish_reason="ok",model="toy",replica="(.)"} (\d+)',
        server.get("/metrics").text,
    )
    assert {replica for replica, _ in counts} == {"1", "2"}
    chats = server.log.count("POST /v1/chat/completions 200")
    assert sum(int(count) for _, count in counts) == chats  # whichever is asked, it tells of all

    before = server.pids()
    interrupted(server.url, llm, lambda replica: os.kill(before[replica], signal.SIGKILL))
    more = ["go on", "and on"]
    assert [server.say(message)[0] for message in more] == talk(llm, *SAID, *more)[-2:]
    until(lambda: len(re.findall(r"replica \d of 2 serves", server.log)) == 3)
    assert "(SIGKILL); it is started again in 0.5 s" in server.log
    everybody = {*before.values(), *server.pids().values()}
    server.end()
    until(lambda: not any(lives(pid) for pid in everybody))
    with Store(tmp_path / "kept") as store:
        assert store.check() == () and not store.busy("s")


@pytest.mark.slow
def test_each_replica_serves_the_adapters(serve, folder, tmp_path):
    place = write_adapter(tmp_path / "owl")
    server = serve("--replicas", "2", "--adapter", f"owl={place}")
    until(lambda: len(server.pids()) == 2)
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 8, "temperature": 0}
    found: dict[str, str] = {}
    for model, adapter in (("toy", None), ("owl", place)):
        llm = griffin.load(folder, device="cpu", adapter=adapter)
        found[model] = llm.chat("x", max_tokens=8, temperature=0).text
        replicas: set[str] = set()
        for _ in range(100):  # connections go to whoever is free
            reply = server.post(body | {"model": model})
            assert reply.json()["choices"][0]["message"]["content"] == found[model]
            replicas.add(reply.headers["x-griffin-replica"])
        assert replicas == {"1", "2"}
    assert found["toy"] != found["owl"]
    assert {one["id"] for one in server.get("/v1/models").json()["data"]} == {"toy", "owl"}


def test_replicas_are_the_same_command_with_their_config(run, monkeypatch, tmp_path):
    from griffin.server.fleet import command as commands
    from griffin.server.fleet import supervisor
    from griffin.server.fleet.replica import ReplicaConfig

    started = []

    class Recorded:
        def __init__(self, count, command, listeners, *, drain_seconds, announce):
            assert len(listeners) == 1 and listeners[0].getsockname()[0] == "127.0.0.1"
            configs = [
                ReplicaConfig(number=n, of=count, first=False, listeners=(3,), link=4, folder="f")
                for n in (1, 2, 3)
            ]
            started.extend(zip(configs, map(command, configs), strict=True))
            self.drain, self.announce = drain_seconds, announce

        def run(self):
            self.announce()
            return 7 if self.drain == 9 else 8

    monkeypatch.setattr(supervisor, "Supervisor", Recorded)
    monkeypatch.setattr(commands, "cores", lambda: 8)
    given = [
        "--model",
        "nowhere",
        "--replicas",
        "3",
        "--port",
        "0",
        "--slots",
        "5",
        "--drain-seconds",
        "9",
        "--adapter",
        f"owl={write_adapter(tmp_path / 'owl')}",
    ]
    done = run("serve", *given)
    assert done.exit_code == 7 and "griffin serves nowhere, owl at http://127.0.0.1:" in done.output
    assert "for this machine only; 3 replicas of 5 slots" in done.output
    for threads, (config, command) in zip((3, 3, 2), started, strict=True):
        own = ["--threads", str(threads), "--replica-config", config.to_json()]
        assert command[command.index("serve") :] == ["serve", *given, *own]
    started.clear()
    run("serve", *given, "--threads", "1")
    assert all(command[-4:-2] == ["--threads", "1"] for _, command in started)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--store-network",)], ids=["local", "network"])
def test_two_servers_over_one_folder(serve, llm, tmp_path, options):
    """As on two machines: neither knows of the other."""
    one, two = serve(*options), serve(*options)
    answers = [server.say(message)[0] for server, message in zip([one, two] * 3, SAID, strict=True)]
    assert answers == talk(llm, *SAID)

    # While one answers, the session is busy for the other, which says so in its list too.
    def from_the_other(replica: str) -> None:
        refused = two.post({"messages": [{"role": "user", "content": "?"}], "session_id": "s"})
        assert refused.status_code == 409 and refused.json()["error"]["code"] == "session_busy"
        assert "retry-after" in refused.headers
        assert two.get("/v1/sessions/s").json()["busy"] is True
        one.process.kill()

    interrupted(one.url, llm, from_the_other)
    # As if that message had not been said.
    assert two.say("go on")[0] == talk(llm, *SAID, "go on")[-1]
    assert two.get("/v1/sessions/s").json()["turns"] == len(SAID) + 1

    # Answers that are gone on from by their id are found wherever they were given.
    three = serve(*options)
    first = httpx2.post(
        f"{two.url}/v1/responses", json={"input": "one", "max_output_tokens": 16, "seed": 1}
    )
    going_on = {
        "input": "two",
        "previous_response_id": first.json()["id"],
        "max_output_tokens": 16,
        "seed": 1,
    }
    second = [httpx2.post(f"{server.url}/v1/responses", json=going_on) for server in (three, two)]
    texts = [reply.json()["output"][0]["content"][0]["text"] for reply in second]
    assert texts[0] == texts[1]
    gone = httpx2.delete(f"{three.url}/v1/responses/{first.json()['id']}")
    assert (
        gone.status_code == 200
        and two.get(f"/v1/responses/{first.json()['id']}").status_code == 404
    )
    journal = "delete" if options else "wal"
    with Store(tmp_path / "kept") as store:
        assert store.folder.index.rows("PRAGMA journal_mode")[0][0] == journal
    two.end()
    three.end()


@pytest.mark.slow
def test_a_signal_lets_all_finish(serve, llm):
    server = serve("--replicas", "2")
    until(lambda: len(server.pids()) == 2)
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 500,
        "stream": True,
        "seed": 1,
    }
    body["logit_bias"] = {str(id): -100 for id in llm.stop_ids}
    with httpx2.stream(
        "POST", f"{server.url}/v1/chat/completions", json=body, timeout=60
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(60) == 0


@pytest.mark.slow
def test_a_unix_socket_and_no_room(serve, folder, tmp_path, run):
    door = tmp_path / "door"
    server = serve("--replicas", "2", "--uds", door)
    assert server.url == f"unix:{door}" and door.stat().st_mode & 0o777 == 0o600
    until(lambda: len(server.pids()) == 2)
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(door)), base_url="http://x") as http:
        assert http.get("/ready").status_code == 200
        assert len(http.get("/v1/server").json()["replicas"]) == 2
    pids = server.pids().values()
    server.process.kill()
    until(lambda: not any(lives(pid) for pid in pids))  # models, threads and all
    again = serve("--replicas", "2", "--uds", door)  # the socket that was left makes room
    again.end()
    assert not door.exists()
    command = [
        sys.executable,
        "-c",
        "import griffin.cli as c; c.main()",
        "serve",
        "--model",
        str(folder),
    ]
    command += ["--replicas", "2", "--port", "0", "--no-store", "--cache-bytes", "1000G"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "enough for 0. Ask for fewer --replicas" in done.stderr, (
        done.stderr
    )
    assert done.stderr.count("griffin:") == 1
