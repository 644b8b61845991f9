"""Amounts of memory, written and read by people."""

from __future__ import annotations

import pytest

from griffin.cli.shared.sizes import Size, binary

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16G", 16 * GIB),
        ("16GiB", 16 * GIB),
        ("16GB", 16 * 10**9),
        ("1.5k", 1536),
        ("12", 12),
        ("3 MB", 3 * 10**6),
    ],
)
def test_sizes(text, size):
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text", ["", "much", "0", "-1G", "16X", "1e3", "nan", "inf", "16 G B", "٣G", "9" * 400]
)
def test_amounts_that_are_none(run, text):
    result = run("plan", "--model", "nano", f"--ram={text}")
    assert result.exit_code == 2 and "is no amount of memory; write 16G" in result.stderr


def test_binary():
    assert [binary(n) for n in (0, 1023, 1024, 3 << 29, 1 << 51)] == [
        *("0 bytes", "1,023 bytes", "1.00 KiB", "1.50 GiB", "2,048.00 TiB")
    ]
