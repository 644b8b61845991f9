"""What this machine can do: reads, copies and matrix products, measured as a run goes on."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch

from griffin import ops
from griffin.ops import native

# The types in which weights of a type are still what they are: the fastest product bounds them.
SERVING = {
    "float32": ("float32",),
    "bfloat16": ("bfloat16", "float32"),
    "int8": ("int8", "bfloat16", "float32"),
}
SECONDS = 0.4  # a probe takes about as long as the work it stands beside, and meets the same noise


class Reader:
    """A buffer larger than the caches, and the rate at which its bytes arrive.

    Several readers are tried and the fastest counts: the compiled module's own, where it was built,
    numpy's `or` over 64-bit words, and torch's sum over float32. Each touches every byte once and
    does next to nothing with it; each thread has a part of its own and reads it from its beginning
    to its end, as a kernel reads its share of the weights.
    """

    def __init__(self, nbytes: int) -> None:
        # Where weights would lie, and written, so that its pages exist.
        memory = ops.allocate((nbytes // 8 * 8,)).fill_(1)
        self._words = memory.numpy().view(numpy.uint64)
        self._floats = torch.from_numpy(self._words.view(numpy.float32))
        self._best: dict[int, Callable[[int], float]] = {}

    @property
    def nbytes(self) -> int:
        return self._words.nbytes

    def rate(self, threads: int, seconds: float = SECONDS) -> float:
        """Return bytes a second with so many threads: the median of about `seconds` of passes."""
        if threads not in self._best:
            trials = {read: max(read(threads) for _ in range(4)) for read in self._readers()}
            self._best[threads] = max(trials, key=lambda read: trials[read])
        end = time.perf_counter() + seconds
        passes: list[float] = []
        while not passes or time.perf_counter() < end:
            passes.append(self._best[threads](threads))
        return statistics.median(passes)

    def _readers(self) -> list[Callable[[int], float]]:
        found: list[Callable[[int], float]] = [
            lambda threads: self._pass(self._or, threads),
            lambda threads: self._pass(self._sum, threads),
        ]
        if native.built():
            found.append(lambda threads: native.read_rate(self._floats, threads))
        return found

    def _or(self, begin: int, end: int) -> object:
        return numpy.bitwise_or.reduce(self._words[begin:end])

    def _sum(self, begin: int, end: int) -> object:
        return self._floats[2 * begin : 2 * end].sum()

    def _pass(self, read: Callable[[int, int], object], threads: int) -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # the threads are ours
        try:
            count = len(self._words)
            cuts = [count * part // threads for part in range(threads + 1)]
            parts = [threading.Thread(target=read, args=cut) for cut in itertools.pairwise(cuts)]
            begun = time.perf_counter()
            for part in parts:
                part.start()
            for part in parts:
                part.join()
            return self.nbytes / (time.perf_counter() - begun)
        finally:
            torch.set_num_threads(before)


def copy_rate(nbytes: int, seconds: float = SECONDS) -> float:
    """Return bytes a second, read and written ones together, of torch's copy of `nbytes` bytes.

    Uses torch's threads and makes its result anew each time, as the kernels it is compared with do:
    where the system hands out new memory slowly, that is most of the time of either.
    """
    source = torch.ones(max(nbytes // 4, 1), dtype=torch.float32)
    took = repeat(source.clone, seconds)
    return 2 * source.nbytes / took


def matrix_rate(
    shapes: Sequence[tuple[int, int, int]], rows: int, dtype: str, seconds: float = SECONDS
) -> float:
    """Return operations a second (two for a multiply and add) of torch's matrix product.

    shapes: (outputs, inputs, how often in a model); each is timed alone, and the rate is that of
            all of them.
    rows:   rows of the left matrix, the tokens of a chunk.
    dtype:  "float32", "bfloat16", or "int8" for the product of 8-bit integers with 32-bit sums.
    """
    operations = spent = 0.0
    for out, inputs, count in shapes:
        if dtype == "int8":
            x = torch.randint(-99, 99, (rows, inputs), dtype=torch.int8)
            weight = torch.randint(-99, 99, (out, inputs), dtype=torch.int8)
            product: Any = vars(torch)["_int_mm"]  # torch gives it no public name
        else:
            kind = getattr(torch, dtype)
            x, weight = torch.randn(rows, inputs, dtype=kind), torch.randn(out, inputs, dtype=kind)
            product = torch.mm
        took = repeat(lambda p=product, x=x, w=weight: p(x, w.t()), seconds / len(shapes))
        operations += 2.0 * rows * out * inputs * count
        spent += took * count
    return operations / spent


def repeat(run: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Return the median seconds of three or more calls of `run`, after one that is not counted."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
