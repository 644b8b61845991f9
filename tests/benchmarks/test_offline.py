"""`python -m benchmarks offline`: a file of prompts beside one after another."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks.test_command import run


@pytest.mark.thorough
def test_a_file_beside_one_after_another(folder, tmp_path):
    out = tmp_path / "report.json"
    result = run(
        *("offline", "--model", folder, "--prompts", 9, "--alone", 3, "--tokens", 5),
        *("--shared", 40, "--slots", 4, "--threads", 1, "--json", "--out", out),
    )
    assert result.exit_code == 0, result.output
    alone, file = (json.loads(line) for line in result.stdout.splitlines())
    assert (alone["what"], alone["batch"]) == ("one after another", 1)
    assert (file["what"], file["batch"]) == ("a file", 4)
    for row in (alone, file):
        assert row["context"] >= 40
        assert row["tokens_per_second"] == pytest.approx(5 / row["seconds"])
    gain = file["tokens_per_second"] / alone["tokens_per_second"]
    assert f"{gain:.2f} times 3 of them" in json.loads(out.read_text())["notes"][0]
