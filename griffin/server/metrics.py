"""Counters for Prometheus; no label holds a key, session, prompt or path of a client's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from griffin.engine import Engine

_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """What a server counts, under names like other servers', so that dashboards fit.

    model, others: the names of the first model and of those beside it.
    """

    def __init__(self, engine: Engine, version: str, model: str, *others: str) -> None:
        self.registry = CollectorRegistry()
        make = {"registry": self.registry, "namespace": "griffin"}
        self.requests = Counter(
            "requests",
            "Requests by endpoint, model and outcome.",
            ["endpoint", "model", "finish_reason", "code"],
            **make,
        )
        self.prompt_tokens = Counter("prompt_tokens", "Tokens of prompts.", ["model"], **make)
        self.cached_tokens = Counter(
            "cached_prompt_tokens", "Of which so many were not read again.", ["model"], **make
        )
        self.generated_tokens = Counter("generation_tokens", "Tokens generated.", ["model"], **make)
        self.drafted_tokens = Counter("draft_tokens", "Tokens read ahead.", ["model"], **make)
        self.accepted_tokens = Counter(
            "accepted_draft_tokens", "Of which so many were chosen.", ["model"], **make
        )
        # In the order in which `count` takes them.
        self.tokens = (
            *(self.prompt_tokens, self.cached_tokens, self.generated_tokens),
            *(self.drafted_tokens, self.accepted_tokens),
        )
        for name in (model, *others):  # each begins at 0, and is there from the beginning
            for tokens in self.tokens:
                tokens.labels(name)
        self.cancelled = Counter("cancelled", "Requests whose client went away.", **make)
        self.state_hits = Counter("state_hits", "What requests went on from.", ["source"], **make)
        self.restore = Histogram(
            "state_restore_seconds", "Reading a session's state.", buckets=_SHORT, **make
        )
        self.first_token = Histogram(
            "time_to_first_token_seconds",
            "From the request to its first token.",
            buckets=_LONG,
            **make,
        )
        self.between = Histogram(
            "inter_token_seconds",
            "Between tokens of an answer, on average.",
            buckets=_SHORT,
            **make,
        )
        self.queue = Histogram("queue_seconds", "Waiting for a slot.", buckets=_LONG, **make)
        self.whole = Histogram(
            "request_seconds", "From the request to its end.", buckets=_LONG, **make
        )
        self.registry.register(_EngineGauges(engine, version, model))

    def count(self, model: str, *tokens: int) -> None:
        """Count a run's tokens: of prompts, cached ones, generated, drafted, accepted drafts."""
        for counter, count in zip(self.tokens, tokens, strict=True):
            counter.labels(model).inc(count)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self.registry)

    def families(self) -> bytes:
        """Return everything as JSON, for `text_of_all`."""
        found = [
            [
                one.name,
                one.documentation,
                one.type,
                [[s.name, s.labels, s.value] for s in one.samples],
            ]
            for one in self.registry.collect()
        ]
        return json.dumps(found).encode()


def text_of_all(replicas: Mapping[int, bytes | None]) -> bytes:
    """Return what replicas count, as Prometheus reads it; each sample says whose it is.

    replicas: the `families` of each, None of one that did not answer; griffin_replica_up tells.
    """
    registry = CollectorRegistry()
    registry.register(_Together(replicas))
    return generate_latest(registry)


class _Together(Collector):
    """The samples of several registries, those of one name together."""

    def __init__(self, replicas: Mapping[int, bytes | None]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("griffin_replica_up", "Replicas that answer.", labels=["replica"])
        found: dict[str, Metric] = {}
        for number, families in self._replicas.items():
            up.add_metric([str(number)], families is not None)
            for name, documentation, kind, samples in json.loads(families or b"[]"):
                metric = found.setdefault(name, Metric(name, documentation, kind))
                metric.samples += [_sample(number, *sample) for sample in samples]
        yield up
        yield from found.values()


def _sample(replica: int, name: str, labels: dict[str, Any], value: float) -> Sample:
    return Sample(name, {**labels, "replica": str(replica)}, value)


class _EngineGauges(Collector):
    """Look at the engine when asked."""

    def __init__(self, engine: Engine, version: str, model: str) -> None:
        self._engine = engine
        self._version = version
        self._model = model

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        for name, help, value in (
            ("requests_running", "Rows that read or write.", stats.busy),
            ("requests_waiting", "Requests without a slot.", stats.waiting),
            ("requests_paused", "Requests set aside.", stats.paused),
        ):
            yield GaugeMetricFamily(f"griffin_{name}", help, value=value)
        slots = GaugeMetricFamily("griffin_slots", "Rows of the engine.", labels=["state"])
        slots.add_metric(["total"], stats.slots)
        slots.add_metric(["busy"], stats.busy)
        yield slots
        size = GaugeMetricFamily(
            "griffin_state_bytes", "Bytes of states, and whose memory.", labels=["tier", "memory"]
        )
        size.add_metric(["device", stats.device], stats.slot_bytes + stats.kept_bytes)
        size.add_metric(["cache", "cpu"], stats.cache_bytes)
        yield size
        info = GaugeMetricFamily("griffin_build_info", "What runs.", labels=["version", "model"])
        info.add_metric([self._version, self._model], 1)
        yield info
