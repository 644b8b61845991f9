"""Replicas that ask each other: each speaks for all, and one that is silent is told apart."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from griffin.engine import Engine
from griffin.server.fleet import peers
from griffin.server.fleet.peers import Peers
from griffin.server.fleet.replica import ReplicaConfig
from griffin.server.metrics import Metrics, text_of_all
from tests.support.toy_models import TOYS, make_model


def config(folder: Path, number: int, of: int = 3) -> ReplicaConfig:
    return ReplicaConfig(
        number=number, of=of, first=False, listeners=(), link=0, folder=str(folder)
    )


@pytest.fixture
def folder(tmp_path_factory):
    # Short: the path of a socket has room for about a hundred letters.
    return tmp_path_factory.mktemp("s")


def test_a_config_survives_the_command_line(folder):
    one = ReplicaConfig(number=2, of=3, first=True, listeners=(4, 5), link=6, folder="/tmp/a b'\"")
    assert ReplicaConfig.from_json(one.to_json()) == one


def test_each_answers_for_all(folder):
    async def main():
        first, second = (
            Peers(config(folder, n), {"who": lambda n=n: b"I am %d" % n}) for n in (1, 2)
        )
        await first.open()
        await second.open()
        found = await second.ask("who")
        await first.close()
        after = await second.ask("who")
        (folder / "1.sock").write_text("left by one that was killed")
        await first.open()
        again = await second.ask("who")
        await first.close()
        await second.close()
        return found, after, again

    found, after, again = asyncio.run(main())
    assert found == again == {1: b"I am 1", 2: b"I am 2", 3: None}
    assert list(found) == [1, 2, 3] and after == {1: None, 2: b"I am 2", 3: None}
    assert not list(folder.iterdir())


def test_who_says_nothing_costs_no_more_than_the_patience(folder, monkeypatch):
    monkeypatch.setattr(peers, "_PATIENCE", 0.05)

    async def main():
        mute = await asyncio.start_unix_server(
            lambda reader, writer: asyncio.sleep(10), folder / "1.sock"
        )
        one = Peers(config(folder, 2, 2), {"who": lambda: b"me"})
        found = await one.ask("who")
        mute.close()
        return found

    assert asyncio.run(main()) == {1: None, 2: b"me"}


def test_what_is_no_question_gets_no_answer(folder):
    async def main():
        one = Peers(config(folder, 1), {"who": lambda: b"me"})
        await one.open()
        said = []
        for question in (b"what\n", b"", b"x" * 100_000 + b"\n"):
            reader, writer = await asyncio.open_unix_connection(folder / "1.sock")
            writer.write(question)
            writer.write_eof()
            try:
                said.append(await reader.read())
            except ConnectionResetError:
                said.append(b"")
        found = await one.ask("who")
        await one.close()
        return said, found[1]

    assert asyncio.run(main()) == ([b""] * 3, b"me")


def counted(number: int) -> bytes:
    """Return what a replica counts that has had so many requests."""
    metrics = Metrics(Engine(make_model(TOYS["hawk"]), 2 + number), "1.0", 'a "toy"')
    metrics.requests.labels("POST /x", "owl", "ok", "none").inc(number)
    metrics.generated_tokens.labels("owl").inc(10 * number)
    metrics.whole.observe(number)
    return metrics.families()


def test_metrics_of_all():
    text = text_of_all({1: counted(1), 2: None, 3: counted(3)}).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found  # each sample once, as Prometheus wants it
            found[key] = sample.value

    def value(name: str, replica: int, **labels: str) -> float:
        return found[name, frozenset({**labels, "replica": str(replica)}.items())]

    assert [value("griffin_replica_up", n) for n in (1, 2, 3)] == [1, 0, 1]
    labels = {"endpoint": "POST /x", "model": "owl", "finish_reason": "ok", "code": "none"}
    assert [value("griffin_requests_total", n, **labels) for n in (1, 3)] == [1, 3]
    assert [value("griffin_generation_tokens_total", n, model="owl") for n in (1, 3)] == [10, 30]
    assert [value("griffin_slots", n, state="total") for n in (1, 3)] == [3, 5]
    assert [value("griffin_request_seconds_bucket", n, le="2.5") for n in (1, 3)] == [1, 0]
    assert [value("griffin_request_seconds_bucket", n, le="+Inf") for n in (1, 3)] == [1, 1]
    assert value("griffin_build_info", 3, version="1.0", model='a "toy"') == 1
    for name in ("griffin_requests_total", "griffin_request_seconds", "griffin_slots"):
        assert text.count(f"# TYPE {name} ") == 1
    assert all("replica=" in line for line in text.splitlines() if line and line[0] != "#")


def test_all_kinds_of_values_travel():
    registry = CollectorRegistry()
    Counter("c", "Help\nof two lines.", ["a"], registry=registry).labels('x"\\\n').inc(0.1)
    Histogram("h", "Help.", registry=registry).observe(float("inf"))
    metrics = Metrics.__new__(Metrics)
    metrics.registry = registry
    text = text_of_all({1: metrics.families()}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["c"].samples[0].labels == {"a": 'x"\\\n', "replica": "1"}
    assert families["c"].samples[0].value == 0.1
    assert {s.value for s in families["h"].samples if s.name == "h_sum"} == {float("inf")}
    assert json.loads(metrics.families()) and time.time() > 0
