"""Reward functions as users write them, the good and the bad; run by worker processes."""

import ctypes
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

KEPT = []


class Number:
    def __init__(self, value):
        self.value = value

    def __float__(self):
        return self.value


def length(prompt, answer):
    return len(answer) - len(prompt)


def column(prompt, answer, row):
    return row["points"] + len(answer)


def keyword(prompt, answer, *, row):
    return row.get("points", -1)


def drawn(prompt, answer):
    return random.random()


def order_of_sets(prompt, answer):
    return float("".join(str(ord(c)) for c in {*"0123456789"}))


def process(prompt, answer):
    return os.getpid()


def misbehaves(prompt, answer):
    """Do what the answer says."""
    if answer.startswith("return "):
        return eval(answer.removeprefix("return "))
    if answer == "raise":
        raise RuntimeError(f"cannot read {prompt!r}")
    if answer == "exit":
        sys.exit(3)
    if answer == "interrupt":
        raise KeyboardInterrupt
    if answer == "sleep":
        time.sleep(600)
    if answer == "loop":
        while True:
            pass
    if answer == "regex":  # which holds the interpreter's lock
        return float(bool(re.match("(a+)+$", "a" * 60 + "b")))
    if answer == "eat":
        KEPT.append(bytearray(8 << 30))
    if answer == "eat slowly":
        while True:
            KEPT.append("x" * (1 << 20))
    if answer == "crash":
        ctypes.string_at(0)
    if answer == "leave":
        os._exit(7)
    if answer == "print":
        print("{}" * 1000)
        os.write(1, b"\0\0\0\2{}")
        assert sys.stdin.read() == ""
    if answer == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(prompt).write_text(f"{child.pid}\n")
        time.sleep(600)
    if answer == "later":  # it ends its process when nobody asks it anything
        threading.Timer(0.1, os._exit, [9]).start()
    return 1.0


def leaks(prompt, answer):
    KEPT.append(bytearray(96 << 20))
    return len(KEPT)


async def waits(prompt, answer):
    return 1.0


def yields(prompt, answer):
    yield 1.0


def one_argument(prompt):
    return 1.0


def three_arguments(prompt, answer, other):
    return 1.0


not_callable = 3
