"""The toy model and the programs in this process, as the tests of griffin.bench have them."""

from tests.bench.conftest import _threads, folder, here

__all__ = ["_threads", "folder", "here"]
