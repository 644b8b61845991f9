"""One key attacks, another asks for small things: what does the other wait for?

python -m tools.neighbours --seconds 60 --model nano

A server of its own, with default options but for one thread of the model and a small prefix cache.
Each attack (see attacks.py; --attack NAME for one alone) lasts so many seconds, at nice 10 on the
same cores. The other's latency, which 19 of 20 requests do not exceed, may be three times what it
is when nobody attacks, and 250 ms; it is told neither 429 nor 5xx; the server's memory stays within
what docs/serving.md says; afterwards every slot, state and descriptor is back.

The table has for each kind of request the other's milliseconds, calm and attacked; MiB beyond those
at the start, at the peak and afterwards; the other's requests; what the attacker was told.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tools.neighbours.attacks import ATTACKS
from tools.neighbours.rounds import play, report

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="tools.neighbours",
    )
    parser.add_argument("--seconds", type=float, default=60, help="of each attack")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    given = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    kinds = ("chat", "form", "tokens", "scores", "session")
    print(f"{'':13}" + "  ".join(f"{kind:>12}" for kind in kinds) + "  MiB peak, after")
    with tempfile.TemporaryDirectory() as folder:
        names = given.attack or list(ATTACKS)
        base, found = play(Path(folder), given.model, names, given.seconds, log=True)
    if given.json is not None:
        given.json.write_text(json.dumps(report(base, found, given.seconds), indent=1) + "\n")
    if wrong := [one.attack for one in found if one.wrong]:
        sys.exit(f"MISSED: {', '.join(wrong)}")
