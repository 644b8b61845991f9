"""Memory for weights and states: large pages where the system has them, bytes that belong to one
tensor."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from griffin import ops


@pytest.mark.parametrize("size", [1, 1 << 16, (3 << 20) + 5, 20 << 20])
def test_pieces_lie_apart_and_begin_with_a_line(size: int) -> None:
    pieces = [ops.allocate((size,)) for _ in range(5)]
    for number, piece in enumerate(pieces):
        assert piece.shape == (size,) and piece.dtype == torch.uint8 and piece.data_ptr() % 64 == 0
        piece.fill_(number)
    assert all(bool((piece == number).all()) for number, piece in enumerate(pieces))


@pytest.mark.thorough
def test_a_block_goes_with_its_last_piece() -> None:
    def resident() -> int:
        fields = Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc")
    ops.allocate((60 << 20,)).fill_(1)
    gc.collect()
    before = resident()
    pieces = [ops.allocate((8 << 20,)).fill_(1) for _ in range(24)]
    full = resident()
    # Of 192 MiB; elsewhere in the process memory may go back meanwhile.
    assert full - before > 90 << 20
    del pieces
    gc.collect()
    assert full - resident() > 90 << 20, "all but the block that is filled now"


def test_each_has_a_storage_of_its_own() -> None:
    """A write to one says nothing about another, wherever it was made, and saving one saves no
    other."""
    with torch.inference_mode():
        ops.allocate((1 << 20,)).fill_(1)
    one, other = ops.allocate((1 << 20,)), ops.allocate((1 << 20,))
    version = other._version
    one.fill_(1)
    assert other._version == version and one.untyped_storage().nbytes() == 1 << 20
    first, second = ops.zeros_together([torch.empty(4 << 20, device="meta")] * 2)
    first.fill_(1)
    assert second._version == 0 and second.untyped_storage().nbytes() == second.nbytes


def test_a_default_device_does_not_move_them() -> None:
    with torch.device("meta"):
        made = [
            ops.allocate((10,)),
            *ops.zeros_together(
                [torch.empty(3, device="meta"), torch.empty(9 << 20, device="meta")]
            ),
        ]
    assert [t.device.type for t in made] == ["cpu"] * 3


def test_unmapped_weights_are_equal_and_elsewhere() -> None:
    weight = torch.randn(300, 200, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    copied = ops.unmap(weight)
    assert torch.equal(copied, weight) and copied.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize("rows", [3, 300_000])
def test_zeros_together(rows: int) -> None:
    like = [
        torch.empty(rows, 5, dtype=torch.bfloat16, device="meta"),
        torch.empty(rows, device="meta"),
        torch.empty(0, dtype=torch.int64, device="meta"),
        torch.empty(2, dtype=torch.int64, device="meta"),
    ]
    made = ops.zeros_together(like)
    assert [(t.shape, t.dtype, t.device.type) for t in made] == [
        (t.shape, t.dtype, "cpu") for t in like
    ]
    assert not any(t.any() for t in made)
    for number, tensor in enumerate(made):
        tensor.fill_(number + 1)
    assert all(bool((tensor == number + 1).all()) for number, tensor in enumerate(made))
