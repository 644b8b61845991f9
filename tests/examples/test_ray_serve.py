"""The example on a local Ray cluster: a session moves between two replicas, and outlives one of
them."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import griffin
from griffin.llm import LLM
from griffin.sessions import Store
from tests.cli.test_serve_replicas import SAID, interrupted, talk
from tests.support.toy_folder import write_toy
from tests.support.waiting import until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("ray") / "toy")


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return griffin.load(folder, device="cpu")


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run the example with two replicas; the value is its address and its folder of sessions."""
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve")
    from examples.ray_serve.app import app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = tmp_path_factory.mktemp("ray") / "kept"
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}},
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"model": str(folder), "store": str(store), "replicas": "2", "slots": "2"}))
        yield f"http://127.0.0.1:{port}", store
    finally:
        serve.shutdown()
        ray.shutdown()


def say(url: str, content: str, session: str = "s") -> tuple[str, str]:
    """Say something; return the answer, and the replica that gave it."""
    body = {"messages": [{"role": "user", "content": content}], "session_id": session}
    reply: Any = None

    def answered() -> bool:
        nonlocal reply
        reply = httpx2.post(
            f"{url}/v1/chat/completions", json=body | {"max_tokens": 6, "seed": 1}, timeout=30
        )
        return reply.status_code == 200

    until(answered, 60)
    return reply.json()["choices"][0]["message"]["content"], reply.headers["x-griffin-replica"]


def test_a_session_moves_and_a_replica_is_killed(served, llm):
    url, folder = served
    assert httpx2.get(f"{url}/ready", timeout=10).json() == {"status": "ok"}
    replicas: set[str] = set()
    until(
        lambda: replicas.add(say(url, "hello", f"probe-{len(replicas)}")[1]) or len(replicas) == 2,
        60,
    )
    answers = [say(url, message) for message in SAID]
    assert [text for text, _ in answers] == talk(llm, *SAID)
    said = list(SAID)
    # Ray chooses at random, of the two with least to do.
    while len({replica for _, replica in answers}) < 2:
        said.append(f"more {len(said)}")
        answers.append(say(url, said[-1]))
        assert len(said) < 60
    assert [text for text, _ in answers] == talk(llm, *said)

    with Store(folder) as store:
        found = store.folder.index.rows("SELECT key FROM session WHERE name = 's'")
        [key] = [row[0] for row in found]
    killed = []

    def kill(replica: str) -> None:
        holder = re.match(r"process (\d+) on", (folder / "locks" / key).read_text())
        assert holder is not None  # the lease says who answers
        killed.append(replica)
        os.kill(int(holder[1]), signal.SIGKILL)

    interrupted(url, llm, kill)
    text, replica = say(url, "go on")
    assert text == talk(llm, *said, "go on")[-1] and replica not in killed
    with Store(folder) as store:
        assert store.check() == ()


def test_an_argument_that_is_none():
    pytest.importorskip("ray")
    from examples.ray_serve.app import app

    with pytest.raises(ValueError, match="no argument modle; there are model"):
        app({"modle": "nano"})
