"""`torchrun -m griffin.cli train`, as a person runs it: signals, a killed rank, one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from griffin.train.checkpoint import newest_step
from tests.train.conftest import MODEL

pytestmark = pytest.mark.slow
STEPS = 400


class Run:
    """A run in a folder, on two ranks, that has done a step and saved it."""

    def __init__(self, recipe: Path, out: Path) -> None:
        before = newest_step(out / "checkpoints")
        words = ["train", str(recipe), "--out", str(out), "--force"]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        self.process = subprocess.Popen(
            [*command, "-m", "griffin.cli", *words],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while newest_step(out / "checkpoints") == before:
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.1)

    def rank(self, number: int) -> int:
        """Return a rank's process id."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ranks = {}
        for child in map(int, children):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks.update({int(v[5:]): child for v in variables if v.startswith(b"RANK=")})
        return ranks[number]

    def end(self) -> str:
        """Return what was printed; within two minutes it must have ended."""
        return self.process.communicate(timeout=120)[0]


@pytest.fixture
def toml(corpus_folder: Path, tmp_path: Path) -> Path:
    model = "\n".join(f"{key} = {value!r}" for key, value in MODEL.items())
    data = f'source = "files"\nroot = "{corpus_folder}"\nheld_out = 0.2'
    # Saves after every step.
    train = f"steps = {STEPS}\nrows = 2\nlength = 24\ncheckpoint_minutes = 1e-9"
    file = tmp_path / "toy.toml"
    file.write_text(f"[model]\n{model}\n[data]\n{data}\n[train]\n{train}\n")
    return file


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds ranks in /proc")
def test_a_run_is_stopped_killed_and_ended_by_one_process(toml: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = Run(toml, out)
    os.kill(run.rank(1), signal.SIGTERM)  # one rank alone is asked
    said = run.end()
    stopped = newest_step(out / "checkpoints")
    assert said.count("exitcode  : 130"), said  # torchrun ends the slower one
    assert said.count("stopped; everything so far is in") == 1 and f"{stopped:07d}" in said
    assert "to go on: torchrun --nproc-per-node 2 -m griffin.cli train" in said

    run = Run(toml, out)
    os.kill(run.rank(0), signal.SIGKILL)
    said = run.end()
    assert said.count("going on from") == 1 and "exitcode  : -9" in said, said

    run = Run(toml, out)
    run.process.send_signal(signal.SIGINT)  # as Ctrl-C does
    said = run.end()
    assert "stopped; everything so far is in" in said, said
    done = newest_step(out / "checkpoints")
    assert stopped <= done < STEPS

    words = ["train", str(toml), "--out", str(out), "--set", "train.learning_rate=1"]
    alone = [sys.executable, "-m", "griffin.cli"]
    refused = subprocess.run([*alone, *words], capture_output=True, text=True)
    assert refused.returncode == 2 and "holds a run of another recipe" in refused.stderr
    ended = subprocess.run([*alone, *words[:-2], "--force"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"step-{done:07d}" in ended.stderr and (out / "results.json").exists()
