"""Numbers in JSON schemas that llguidance, which computes in floats, would round."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

_EXACT = 1 << 53
# The largest float of 18 digits; bounds of more are not computed with.
_EDGE = 10**18 - 128
_BESIDE = 1e-15


def whole(value: Any) -> int | None:
    """Return a whole number, `3.0` included, as an int; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def digits(value: float) -> int:
    """Return a number's digits, without zeros at their ends, as a whole number: 0.250 is 25."""
    found = 0
    for digit in Decimal(repr(value)).normalize().as_tuple().digits:
        found = 10 * found + digit
    return found


def lowest(value: float, *, exclusive: bool, integer: bool) -> tuple[float, bool] | None:
    """Return the least bound that floats hold and that lets nothing under `value` through.

    Returns it with whether it is exclusive still; None if all above it is beyond what can be held.
    """
    number = whole(value)
    if number is not None and exclusive and not integer and abs(number) < _EXACT:
        # llguidance lets a whole bound that is excluded through where the other one is near.
        return number + max(_BESIDE, 2 * math.ulp(number)), False
    if number is None or abs(number) < _EXACT:
        return value, exclusive
    if exclusive and integer:
        number, exclusive = number + 1, False
    if number < -_EDGE:
        return -_EDGE, False
    if number > _EDGE:
        return None
    near = float(number)
    # A float is written with as few digits as name it, and read as the number that it is.
    while (least := min(int(near), int(Decimal(repr(near))))) < number or (
        exclusive and least == number
    ):
        near = math.nextafter(near, math.inf)
    return (int(near), False) if near <= _EDGE else None


def highest(value: float, *, exclusive: bool, integer: bool) -> tuple[float, bool] | None:
    """Return the bound from above in the same way."""
    found = lowest(-value, exclusive=exclusive, integer=integer)
    return None if found is None else (-found[0], found[1])


def is_sayable(value: Any) -> bool:
    """Return whether a value can be written under a grammar, to the last digit.

    Whole numbers that floats do not hold cannot, nor those of more than 18 digits, nor a string
    with the character DEL in it.
    """
    if isinstance(value, dict):
        return all(map(is_sayable, value.values()))
    if isinstance(value, list):
        return all(map(is_sayable, value))
    if isinstance(value, str):
        return "\x7f" not in value
    number = whole(value)
    if number is None or abs(number) < _EXACT:
        return True
    return abs(number) <= _EDGE and number == int(Decimal(repr(float(number))))
