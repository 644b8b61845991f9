"""The first hour, by the clock: `python -m tools.stopwatch demo` and `... page WHEEL`.

demo: from `git clone` to the bundled model's first words, as README says, at a commit.
page: from `pip install` of a wheel (or of a folder) to the chat page answering.

Each command runs as a newcomer's would: in a folder, a HOME and caches that are new and thrown away
afterwards. What it prints: seconds, and seconds of the processor, which a busy machine changes
less. `--out FILE` adds the journey to a JSON list, with the machine and its load. Standard library
only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
FLAGS = ("avx2", "avx512_vnni", "avx512_bf16", "amx_tile", "asimddp")


class Journey:
    """Commands one after the other in a new home, each timed.

    steps: what each command took: {"command", "seconds", "processor"}.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.steps = home, []
        own = {"HOME": home, "XDG_CACHE_HOME": home / "cache", "XDG_CONFIG_HOME": home / "config"}
        own |= {"XDG_DATA_HOME": home / "data", "PIP_CACHE_DIR": home / "pip"}
        left_out = ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "PYTHONPATH")
        self._environment = {k: v for k, v in os.environ.items() if k not in left_out}
        self._environment |= {name: str(path) for name, path in own.items()}

    def run(self, command: str, until: str | None = None, **names: object) -> str:
        """Run a shell command in the home; return what it printed.

        names: what stands for {name} in the command; kept is the command with the names.
        until: a pattern: stop the clock at the first line in which it is found, and leave the
               command running until the journey's end.
        Raises SystemExit, with what was printed last, if it fails or ends without the pattern.
        """
        begin, used = time.monotonic(), _processor()
        words = command.format(**names)
        process = subprocess.Popen(
            ["bash", "-c", f"exec {words}" if until else words],
            cwd=self.home,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        printed, found = "", False
        for line in process.stdout:
            printed += line
            print(f"{time.monotonic() - begin:7.1f}  {line}", end="", flush=True)
            if until is not None and re.search(until, line):
                found = True
                break
        if until is None:
            process.wait()
        if process.poll() if until is None else not found:
            raise SystemExit(f"failed: {words}\n{printed[-2000:]}")
        self._running = process
        seconds = time.monotonic() - begin
        self.steps.append(
            {
                "command": command,
                "seconds": round(seconds, 1),
                "processor": round(_processor() - used, 1) if until is None else None,
            }
        )
        return printed

    def end(self) -> None:
        """End what the last command left running."""
        self._running.terminate()
        self._running.communicate()


def demo(journey: Journey, repository: str, commit: str) -> None:
    """From a clone to first words."""
    clone = "git clone --quiet {repository} griffin && git -C griffin checkout -q {commit}"
    journey.run(clone, repository=repository, commit=commit)
    journey.run("make -C griffin demo")


def page(journey: Journey, what: str) -> None:
    """From pip to the chat page."""
    journey.run("{python} -m venv env", python=sys.executable)
    torch = "env/bin/python -m pip install --quiet --constraint {constraints} torch"
    journey.run(torch, constraints=ROOT / "constraints.txt")
    journey.run("env/bin/python -m pip install --quiet '{what}[serve]'", what=what)
    told = journey.run("env/bin/griffin serve --port 0", until=r"serves .* at http")
    begin = time.monotonic()
    with urlopen(re.findall(r"at (http\S+?),? ", told)[-1], timeout=60) as answer:
        assert b"<html" in answer.read()
    journey.steps[-1]["seconds"] = round(journey.steps[-1]["seconds"] + time.monotonic() - begin, 1)
    journey.end()


def machine() -> dict[str, Any]:
    """Return the processor, what it knows, cores and load over the last minute."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    knows = [flag for flag in FLAGS if re.search(rf"\b{flag}\b", text)]
    return {
        "processor": name[1] if name else "unknown",
        "knows": knows,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.stopwatch", description=__doc__)
    journeys = parser.add_subparsers(dest="journey", required=True)
    first = journeys.add_parser("demo", help="from a clone to first words")
    first.add_argument("--repository", default=str(ROOT))
    first.add_argument("--commit", default="HEAD")
    second = journeys.add_parser("page", help="from pip install to the chat page")
    second.add_argument("what", type=Path, help="a wheel, or a folder with a checkout")
    for each in (first, second):
        each.add_argument("--out", type=Path, help="a JSON list to add the journey to")
    asked = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory(prefix="griffin-first-hour-") as folder:
        journey = Journey(Path(folder))
        if asked.journey == "demo":
            named = ["git", "-C", asked.repository, "rev-parse", "--short", asked.commit]
            of = subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()
            demo(journey, asked.repository, of)
        else:
            page(journey, str(asked.what.resolve()))
            of = asked.what.name
    seconds = round(sum(step["seconds"] for step in journey.steps), 1)
    print(f"\n{asked.journey} of {of}: {len(journey.steps)} commands, {seconds} s")
    for step in journey.steps:
        print(f"{step['seconds']:8.1f} s  {step['processor']} of the processor  {step['command']}")
    if asked.out is not None:
        kept = json.loads(asked.out.read_text()) if asked.out.exists() else []
        kept.append(
            {"journey": asked.journey, "of": of, "seconds": seconds, "steps": journey.steps}
            | {"machine": before | {"load_at_the_end": machine()["load"]}}
        )
        asked.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
