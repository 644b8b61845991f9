"""What a replica is started with: this same griffin, and its share of the cores."""

from __future__ import annotations

import os
import subprocess

import pytest

from griffin.server.fleet.command import ourselves, share


@pytest.mark.parametrize("cores, count", [(8, 3), (2, 2), (7, 7), (16, 5)])
def test_cores_are_shared_out(cores, count):
    assert sum(share(cores, count, number) for number in range(1, count + 1)) == cores
    assert {share(cores, count, number) for number in range(1, count + 1)} <= {
        cores // count,
        cores // count + 1,
    }


def test_nobody_gets_less_than_a_core():
    assert [share(2, 5, number) for number in range(1, 6)] == [1] * 5


def test_nothing_is_imported_from_the_current_folder(tmp_path):
    (tmp_path / "griffin.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "json.py").write_text("raise SystemExit('not ours')")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ourselves(["--version"]), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "griffin" in done.stdout, done.stderr
