"""Run what a model wrote: whether a program passes its tests, in a process with limits."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from math import comb
from pathlib import Path
from statistics import fmean

SECONDS = 10  # of processor time; of the clock six times as many
MEMORY = 1 << 30  # bytes of address space


def passes(program: str, seconds: int = SECONDS, memory: int = MEMORY) -> bool:
    """Return whether a program runs to its end.

    It runs in a process of its own and an empty folder, with `seconds` of processor time, `memory`
    bytes and files of a megabyte, without this process's environment, and without a network where
    the system lets a process give that up (Linux, mostly). What it may otherwise do is what its
    user may: that is why nobody runs it unasked.
    """
    word = secrets.token_hex(16)  # that a program which ends early cannot print
    told = {"program": program, "seconds": seconds, "memory": memory, "word": word}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("code_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0", "HOME": folder, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(json.dumps(told).encode(), 6 * seconds)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return said.decode("ascii", "replace") == word


class CodeEval:
    """What lm-eval's tasks of code expect of the metric "code_eval", with our limits.

    HumanEval and MBPP ask for it by that name, which would fetch a program that runs answers here.
    """

    def compute(
        self,
        references: Sequence[str],
        predictions: Sequence[Sequence[str]],
        k: Sequence[int] = (1,),
    ) -> tuple[dict[str, float], dict[int, list[bool]]]:
        """Return pass@k of answers, and for each problem which passed.

        references: the tests of each problem. predictions: some programs for each.
        pass@k is the unbiased estimate of arXiv:2107.03374, for k up to the number of programs.
        """
        found = {
            number: [passes(f"{program}\n{tests}") for program in programs]
            for number, (tests, programs) in enumerate(zip(references, predictions, strict=True))
        }
        fewest = min(map(len, found.values()))
        rates = {
            f"pass@{n}": fmean(_estimate(len(each), sum(each), n) for each in found.values())
            for n in k
            if n <= fewest
        }
        return rates, found


def _estimate(count: int, right: int, k: int) -> float:
    return 1.0 - comb(count - right, k) / comb(count, k)
