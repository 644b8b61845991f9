"""Work beside the loop: nobody's long work keeps others waiting."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace

import pytest

from griffin.server.workers import Workers, asking
from tests.support.waiting import until


@pytest.fixture
def workers():
    made = Workers("test", 3)
    yield made
    made.shutdown()


def test_one_that_takes_long_leaves_a_thread_to_the_others(workers):
    end, begun = threading.Event(), [threading.Event() for _ in range(9)]

    def long(number):
        begun[number].set()
        assert end.wait(60)

    greedy = [workers.submit(lambda n=n: long(n), "a") for n in range(9)]
    assert begun[0].wait(60) and begun[1].wait(60)
    assert workers.submit(lambda: 7, "b").result(60) == 7
    assert not begun[2].is_set()
    end.set()
    for one in greedy:
        one.result(60)


def test_those_who_wait_take_turns(workers):
    end, order = threading.Event(), []
    held = [workers.submit(lambda: end.wait(60), name) for name in "xyz"]
    waiting = [
        workers.submit(lambda name=name: order.append(name), name)
        for name in ("a", "a", "a", "b", "c")
    ]
    assert not order
    end.set()
    for one in (*held, *waiting):
        one.result(60)
    assert sorted(order) == list("aaabc")
    assert order.index("b") <= 3 and order.index("c") <= 4  # threads run beside each other


def test_what_is_not_wanted_any_more_costs_nothing(workers):
    end, done = threading.Event(), []
    held = [workers.submit(lambda: end.wait(60), "a") for _ in range(2)]
    unwanted = [workers.submit(lambda: done.append(1), "a") for _ in range(5)]
    assert all(one.cancel() for one in unwanted)
    last = workers.submit(lambda: done.append(2), "a")
    assert len(workers._lines["a"]) == 1
    end.set()
    for one in (*held, last):
        one.result(60)
    assert done == [2]


def test_an_error_is_the_callers_and_the_thread_goes_on(workers):
    with pytest.raises(ZeroDivisionError):
        workers.submit(lambda: 1 // 0, "a").result(60)
    token = asking.set(SimpleNamespace(holder="b", gone=False))
    try:
        assert workers.submit(threading.get_ident).result(60) != threading.get_ident()
    finally:
        asking.reset(token)
    assert workers._free == 3 and not workers._busy and not workers._lines


def test_what_an_error_held_goes_with_it(workers):
    """Without waiting for the collector of circles: it may have been a long text."""

    class Held:
        pass

    def fail():
        held = Held()
        kept.append(weakref.ref(held))
        raise ValueError("x")

    kept: list[weakref.ref[Held]] = []
    gc.disable()
    try:
        future = workers.submit(fail, "a")
        assert isinstance(future.exception(60), ValueError)
        del future
        until(lambda: kept[0]() is None)
    finally:
        gc.enable()


def test_what_waits_at_the_end_is_cancelled():
    made, end = Workers("test", 2), threading.Event()
    held = made.submit(lambda: end.wait(60), "a")
    waiting = made.submit(lambda: 1, "a")
    made.shutdown(wait=False)
    assert waiting.cancelled()
    end.set()
    assert held.result(60)
