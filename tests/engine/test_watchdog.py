"""What hangs, and what is only slow."""

from __future__ import annotations

import pytest

from griffin.engine import Engine
from griffin.engine.watchdog import FACTOR, Pulse, Watchdog
from tests.support.toy_engine import CHUNK, ask, run


def looks(watchdog, start, seconds, every=0.5):
    """Look now and then for so long; return when it was first said that a step hangs."""
    for number in range(int(seconds / every) + 1):
        if watchdog.look(start + number * every):
            return number * every
    return None


def test_a_step_that_does_not_end_hangs():
    pulse = Pulse()
    watchdog = Watchdog(pulse, 60.0)
    assert looks(watchdog, 0.0, 1000.0) is None  # nothing is done
    pulse.beat()
    assert looks(watchdog, 1000.0, 1000.0) == pytest.approx(60.5, abs=1)


def test_the_limit_is_from_measured_times():
    pulse = Pulse()
    watchdog = Watchdog(pulse, 60.0, expected=9.0)
    assert watchdog.limit == FACTOR * 9.0
    pulse.beat(20.0)  # a large model on one core
    assert watchdog.limit == FACTOR * 20.0
    assert looks(watchdog, 0.0, FACTOR * 20.0 - 1) is None
    pulse.beat(1.0)
    assert looks(watchdog, 1000.0, FACTOR * 20.0 - 1) is None


def test_progress_is_no_hang_however_slow():
    pulse = Pulse()
    watchdog = Watchdog(pulse, 60.0)
    for start in range(0, 5000, 50):
        pulse.beat(1.0)
        assert looks(watchdog, start, 49.0) is None


def test_a_machine_that_sleeps_and_clocks_that_jump_are_no_hang():
    pulse = Pulse()
    watchdog = Watchdog(pulse, 60.0)
    pulse.beat()
    assert looks(watchdog, 0.0, 30.0) is None
    for now in (1e6, 2e6, 5.0, 6.0, 1e9, -1e9, 0.0):
        assert not watchdog.look(now)
    assert looks(watchdog, 0.0, 20.0) is None
    assert looks(watchdog, 20.0, 30.0) is not None  # but the time that passed awake counts


def test_an_engine_shows_its_steps(model, monkeypatch):
    engine = Engine(model, 2, chunk=CHUNK)
    engine.submit(ask(30))
    seen = []
    trunk = model.trunk

    def watched(tokens, *rest, **more):
        seen.append(engine.pulse.at_work)
        return trunk(tokens, *rest, **more)

    monkeypatch.setattr(model, "trunk", watched)
    run(engine)
    assert all(seen) and not engine.pulse.at_work
    assert engine.pulse.count >= len(seen) and engine.pulse.longest > 0
