"""What the tests of ops share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture
def threads() -> Iterator[None]:
    """Leave the number of torch's threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def with_threads(threads: None) -> Callable[[int], None]:
    """Set the number of torch's threads for one test."""
    return torch.set_num_threads
