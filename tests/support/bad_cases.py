"""A kind of cases for `tools.fuzz` whose attempts go wrong in every way, by their number."""

from __future__ import annotations

import os
import random
import time

ALLOWED = (ValueError,)
WAYS = ("well", "refused", "another error", "slow", "for ever", "too large", "ends the process")


def make(chance: random.Random) -> str:
    return chance.choice(WAYS)


def attempt(case: str) -> None:
    print("what a library prints")
    if case == "refused":
        raise ValueError("no")
    if case == "another error":
        raise KeyError("a key")
    if case in ("slow", "for ever"):
        time.sleep(0.7 if case == "slow" else 600)
    if case == "too large":
        len(b"x" * 300_000_000)
    if case == "ends the process":
        os.abort()
