"""`python -m benchmarks screened`: decode with the whole head and behind a screen, by turns."""

from __future__ import annotations

import json

from click.testing import CliRunner

from benchmarks.__main__ import main
from griffin import checkpoints
from griffin.bench.work import decode_bytes
from griffin.loading import load_model
from tests.support.toy_folder import write_toy


def test_ways_and_their_bytes(tmp_path):
    checkpoints.quantize(write_toy(tmp_path / "toy"), tmp_path / "small", "int8")
    given = ["screened", "--model", str(tmp_path / "small"), "--rounds", "2", "--prompt", "3"]
    result = CliRunner().invoke(main, [*given, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["machine"]["cores"] >= 1 and found["command"]
    ways = {one["way"]: one for one in found["ways"]}
    assert list(ways) == ["whole", "greedy", "drawn from all"]
    model = load_model(tmp_path / "small", screen=True)
    wanted = [
        decode_bytes(load_model(tmp_path / "small")),
        *(decode_bytes(model, b) for b in (2, 3)),
    ]
    assert [one["bytes_per_token"] for one in ways.values()] == wanted
    assert ways["whole"]["faster"] == 1 and all(one["seconds"] > 0 for one in ways.values())
    told = CliRunner().invoke(main, given)
    assert told.exit_code == 0 and "times" in told.stdout and "by its bytes" in told.stdout
    assert CliRunner().invoke(main, ["screened"]).exit_code == 2
