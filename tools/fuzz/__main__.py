"""Try many cases of one kind, and say which of them the program did not take well.

python -m tools.fuzz files --cases 20000 --seed 1
python -m tools.fuzz files --seed 1 --only 4711      # one case again, here, with its traceback

Cases run in a process of their own. A finding is an error of a kind that is not allowed, a case
that takes more than two seconds, more than 200 MB above what the imports took, or a process that
ends. Prints one line a finding and ends with 1 if there was one. Case N of a seed is the same
whatever was tried before it.
"""

from __future__ import annotations

import argparse
import sys

from tools.fuzz.harness import MEMORY, SECONDS, again, hunt

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="tools.fuzz",
    )
    parser.add_argument("kind", help="a file of tools/fuzz: files, ...")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="go on for so long, instead of the cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="case N alone, in this process")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the most a case may take")
    parser.add_argument("--memory", type=int, default=MEMORY, help="bytes above the imports")
    given = parser.parse_args()
    if given.only is not None:
        sys.exit(again(given.kind, given.seed, given.only))
    tally = hunt(
        given.kind,
        given.seed,
        cases=None if given.minutes else given.cases,
        minutes=given.minutes,
        seconds=given.seconds,
        memory=given.memory,
        tell=lambda line: print(line, flush=True),
    )
    print(tally)
    sys.exit(1 if tally.findings else 0)
