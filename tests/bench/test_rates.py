"""What measures the machine."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from griffin.bench.memory import forget_peak, resident
from griffin.bench.rates import Reader, copy_rate, matrix_rate, repeat


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_pass_reads_every_word_once(threads):
    reader = Reader(8 * 1001)
    parts = []
    lock = threading.Lock()

    def note(begin: int, end: int) -> None:
        with lock:
            parts.append((begin, end))

    assert reader._pass(note, threads) > 0
    parts.sort()
    assert len(parts) == threads and parts[0][0] == 0 and parts[-1][1] == 1001
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))


def test_reading_leaves_torchs_threads_alone_and_measures_something():
    before = torch.get_num_threads()
    assert 1e8 < Reader(1 << 24).rate(2, 0.01) < 1e13
    assert torch.get_num_threads() == before


def test_both_readers_look_at_the_whole_part():
    reader = Reader(8 * 64)
    reader._words[:] = 0
    reader._words[40] = 1 << 62  # 2.0 as the upper of two floats
    assert reader._or(40, 41) and reader._or(0, 64) and not reader._or(41, 64)
    assert reader._sum(0, 64) == 2 and reader._sum(41, 64) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_matrix_rate(dtype):
    assert 1e5 < matrix_rate([(64, 32, 3), (32, 64, 1)], 32, dtype, 0.01) < 1e15


def test_copy_rate_and_repeat():
    assert 1e6 < copy_rate(1 << 20, 0.01) < 1e13
    calls: list[int] = []
    repeat(lambda: calls.append(1), 0.0)
    assert len(calls) == 4  # one that is not counted, and three


def test_memory_sees_what_is_held():
    before = resident()
    held = torch.ones(1 << 24)
    during = resident()
    assert during["resident"] - before["resident"] > 0.9 * held.nbytes
    assert during["peak"] >= during["resident"]
    del held
    forget_peak()
    assert resident()["peak"] < during["peak"]
