"""The stopwatch of the first hour: what it runs does not see the one who runs it."""

from __future__ import annotations

import pytest

from tools.stopwatch import Journey, machine


def test_a_command_has_a_home_of_its_own_and_is_timed(tmp_path):
    journey = Journey(tmp_path)
    assert journey.run("echo $HOME $PIP_CACHE_DIR; pwd").split() == [
        str(tmp_path),
        str(tmp_path / "pip"),
        str(tmp_path),
    ]
    (step,) = journey.steps
    assert step["command"].startswith("echo") and step["seconds"] >= 0 <= step["processor"]


def test_a_command_that_fails_ends_the_journey_with_what_it_said(tmp_path):
    with pytest.raises(SystemExit, match=r"failed: .*\n.*too bad"):
        Journey(tmp_path).run("echo too bad; exit 3")


def test_the_clock_stops_where_a_server_says_that_it_is_there(tmp_path):
    journey = Journey(tmp_path)
    script = 'bash -c "echo starting; echo serves at http; sleep 600"'
    assert journey.run(script, until="serves .*http").endswith("serves at http\n")
    journey.end()
    with pytest.raises(SystemExit, match="failed"):
        journey.run('bash -c "echo starting"', until="serves")


def test_the_machine_is_named():
    assert machine()["cores"] >= 1 and machine()["processor"]
