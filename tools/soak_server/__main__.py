"""Many clients, and a table at the end.

python -m tools.soak_server --minutes 10 --clients 64, or --kills 20

Clients ask at random, whole and streamed, for one to three answers, with seeds; talk in sessions,
fork and rewind them; go away in the prompt and in the answer. Each answer whose end was seen must
be the one that the model gives alone, to the bit, and what was heard of the others its beginning.
In between every slot must be free, no answer may be a 500, and memory stays what it was after the
first rounds.

With --kills the server is killed (-9) at a random moment of each round and started again: every
session must go on from its last answered turn. What a client saw the end of must be there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from tools.soak_server.rounds import kill_often, soak

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="tools.soak_server",
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kills", type=int, default=0, help="so many, instead of the minutes")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if given.kills:
                tally = kill_often(Path(folder), given.kills, given.clients, given.seed, log=True)
            else:
                tally = soak(Path(folder), 60 * given.minutes, given.clients, given.seed, log=True)
        except AssertionError as missed:
            sys.exit(f"MISSED: {missed}")
    for name, count in tally.items():
        print(f"{name:<32}{count:>12,}")
