"""What crosses to and from a device goes by its side stream, and nobody reads it too early.

Streams are a GPU's: here they take down what they are asked, on a device without values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from griffin.engine import crossing
from griffin.engine.crossing import Lane, restore, to_host, to_keep
from griffin.engine.pieces import cut_recurrent, cut_span
from griffin.model import State
from tests.support.closeness import assert_states_equal, tensors
from tests.support.stand_in_device import DEVICE, stand_in
from tests.support.toy_engine import CONFIG, ids, make_model

S = CONFIG.attention_window_size
POS = S + 3


class Streams:
    """What a lane asks of torch.cuda. log: what was asked, in order, and on which stream."""

    def __init__(self) -> None:
        self.log: list[tuple[str, ...]] = []
        self.current = "main"

    def Stream(self, device: torch.device) -> Asked:
        return Asked(self, "side")

    def current_stream(self, device: torch.device) -> Asked:
        return Asked(self, self.current)

    @contextmanager
    def stream(self, stream: Asked) -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before


class Asked:
    """A stream, or an event on one."""

    def __init__(self, streams: Streams, name: str) -> None:
        self.name, self._streams = name, streams

    def wait_stream(self, other: Asked) -> None:
        self._streams.log.append((self.name, "waits for", other.name))

    def record_event(self) -> Asked:
        self._streams.log.append((self.name, "event"))
        return self

    def synchronize(self) -> None:
        self._streams.log.append(("host", "waits for", self.name))


class Copies(TorchDispatchMode):
    """Takes down operations that have tensors on both sides, and those on the device alone."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        found = {t.device for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)}
        if DEVICE in found:
            kind = "crosses" if len(found) > 1 else "works"
            self._streams.log.append((self._streams.current, kind))
        return out


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    """Have the device, and a lane of it whose streams take down what they are asked."""
    found = Streams()
    way = Lane(DEVICE, found, pin=False)
    monkeypatch.setattr(crossing, "lane", lambda device: way)
    monkeypatch.setattr(
        Tensor, "record_stream", lambda t, stream: found.log.append((stream.name, "uses"))
    )
    with stand_in() as watch, watch.crossing(), Copies(found):
        yield found


@pytest.mark.parametrize("fetch", [to_host, to_keep])
def test_what_goes_home_is_read_after_its_event(fetch, streams):
    values = torch.ones(3, 4, device=DEVICE), torch.ones(2, dtype=torch.bfloat16, device=DEVICE)
    streams.log.clear()
    found = fetch(*values)
    assert all(t.is_cpu for t in found)
    assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in values]
    asked = [each for each in streams.log if each[1] != "works"]
    assert asked == [
        ("side", "waits for", "main"),
        ("side", "crosses"),
        ("side", "crosses"),
        ("side", "event"),
        ("host", "waits for", "side"),
    ]


def test_what_comes_back_is_waited_for_by_the_device_alone(streams):
    state = State.zeros(CONFIG, 1)
    cuts = [(POS - S, S - 2), (S - 2, S), (S, POS)]
    spans = [cut_span(state, *cut, pos=POS) for cut in cuts]
    streams.log.clear()
    found = restore(CONFIG, POS, cut_recurrent(state), spans, torch.float32, DEVICE)
    assert all(t.device == DEVICE for t in tensors(found))
    assert [t.shape for t in tensors(found)] == [t.shape for t in tensors(state)]
    asked = [each for each in streams.log if each[1] != "works"]
    uses = [("main", "uses")] * len(tensors(found))
    assert asked == [("side", "crosses")] * 4 + [("main", "waits for", "side"), *uses]
    assert {each for each in streams.log if each[1] == "works"} == {("side", "works")}


def test_on_the_host_nothing_is_copied():
    """Values that lie there are themselves, and a state is joined as ever."""
    values = torch.ones(3), torch.zeros(2)
    for fetch in (to_host, to_keep):
        assert all(a is b for a, b in zip(values, fetch(*values), strict=True))
    _, state = make_model().trunk(torch.tensor([ids(POS)]))
    spans = [cut_span(state, POS - S, S), cut_span(state, S, POS)]
    device = torch.device("cpu")
    found = restore(CONFIG, POS, cut_recurrent(state), spans, torch.float32, device)
    assert_states_equal(found, state)


def test_a_device_without_streams_copies_as_torch_does(monkeypatch):
    assert crossing.lane(DEVICE) is None and crossing.lane(torch.device("cpu")) is None
    with stand_in() as watch, watch.crossing():
        (home,) = to_keep(torch.ones(3, device=DEVICE))
        assert home.is_cpu and watch.crossed.total() == 1
