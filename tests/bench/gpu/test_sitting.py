"""A sitting keeps to its budget, writes after every row, and a dry run tries them all."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.rows import ROWS
from griffin.bench.gpu.scene import Scene
from griffin.bench.gpu.sitting import Sitting, SittingRow, Waits
from griffin.cli import main


def row(name: str, run, seconds: float = 1.0) -> SittingRow:
    return SittingRow(name=name, seconds=seconds, about=f"about {name}", run=run)


def good(scene: Scene):
    yield Figure(what="a", value=8.0, unit="x", limit=10.0, wanted=7.0)
    yield Figure(what="b", value=8.0, unit="s", limit=2.0, wanted=7.0, less=True)


def test_the_report_is_whole_after_each_row_and_a_failure_ends_nothing(tmp_path):
    out = tmp_path / "report.json"

    def looks(scene: Scene):
        seen.append(json.loads(out.read_text()))
        yield Figure(what="c", value=1.0, unit="")

    def breaks(scene: Scene):
        yield Figure(what="d", value=1.0, unit="")
        raise RuntimeError("torn")

    def waits(scene: Scene):
        raise Waits("nothing is there yet")
        yield

    seen: list[dict] = []
    sitting = Sitting(Scene(True), {"command": "x"}, budget=100.0, out=out)
    sitting.run([row("one", good), row("two", looks), row("three", breaks), row("four", waits)])
    assert [entry["outcome"] for entry in seen[0]["rows"]] == ["done"]
    report = json.loads(out.read_text())
    assert report == sitting.report and report["dry_run"] and report["command"] == "x"
    outcomes = {entry["row"]: entry["outcome"] for entry in report["rows"]}
    assert outcomes == {"one": "done", "two": "done", "three": "failed", "four": "waits"}
    broken = report["rows"][2]
    assert [f["what"] for f in broken["figures"]] == ["d"] and "torn" in broken["traceback"]
    more, less = report["rows"][0]["figures"]
    assert (more["share"], more["reached"]) == (0.8, True)
    assert (less["share"], less["reached"]) == (0.25, False)


def test_a_report_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    out, picture = tmp_path / "report.json", tmp_path / "shares.svg"
    Sitting(Scene(True), {"command": "x"}, budget=100.0, out=out).run([row("one", good)])
    drawn = CliRunner().invoke(main, ["bench", "gpu", "--plot", str(out), "--out", str(picture)])
    assert drawn.exit_code == 0, drawn.output
    assert picture.read_text().startswith("<?xml")
    empty, other = tmp_path / "empty.json", tmp_path / "other.json"
    empty.write_text('{"rows": []}')
    other.write_text('{"rows": [1]}')
    for file, why in ((empty, "nothing to draw"), (other, "no report of a sitting")):
        told = CliRunner().invoke(main, ["bench", "gpu", "--plot", str(file)])
        assert told.exit_code == 2 and why in told.output


def test_a_row_that_might_not_end_in_time_is_left_out(tmp_path):
    scene = Scene(True)
    scene.dry = False  # toy shapes, but the rules of a true sitting
    sitting = Sitting(scene, {}, budget=50.0)
    sitting.run([row("long", good, 51.0), row("short", good, 5.0)])
    assert [entry["outcome"] for entry in sitting.report["rows"]] == ["left out", "done"]
    assert "it takes 51 s" in sitting.report["rows"][0]["why"]


def test_interruption_keeps_what_was_measured(tmp_path):
    def stops(scene: Scene):
        yield Figure(what="e", value=1.0, unit="")
        raise KeyboardInterrupt

    sitting = Sitting(Scene(True), {}, budget=50.0, out=tmp_path / "r.json")
    with pytest.raises(KeyboardInterrupt):
        sitting.run([row("one", stops), row("two", good)])
    (entry,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert entry["why"] == "it was interrupted" and entry["figures"][0]["what"] == "e"


QUICK = ("ceilings", "prefill", "parts", "9b-prefill", "1m", "memcheck")
SLOW = tuple(each.name for each in ROWS if each.name not in QUICK)


@pytest.mark.parametrize(
    "rows", [QUICK, *(pytest.param((name,), marks=pytest.mark.slow) for name in SLOW)], ids=str
)
def test_a_dry_run_tries_every_row(tmp_path, rows):
    """Those with kernels in Triton's interpreter, which is slow."""
    out = tmp_path / "report.json"
    arguments = ["--dry-run", "--json", "--out", str(out), "--only", ",".join(rows)]
    result = CliRunner().invoke(main, ["bench", "gpu", *arguments])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads(out.read_text())
    assert {entry["row"] for entry in report["rows"]} == set(rows)
    assert {entry["outcome"] for entry in report["rows"]} <= {"done", "waits"}
    assert all(entry["figures"] or entry["why"] for entry in report["rows"])
    assert report["dry_run"] and "dry run" in report["machine"]["device"]
    outcomes = {entry["row"]: entry["outcome"] for entry in report["rows"]}
    assert outcomes.pop("memcheck", "waits") == "waits" and set(outcomes.values()) <= {"done"}


def test_rows_come_in_order_of_worth():
    """The long ones last."""
    assert len({each.name for each in ROWS}) == len(ROWS) and ROWS[0].name == "ceilings"
    assert ROWS[-1].name == "memcheck"


def test_the_rest_is_what_a_report_has_not_done(tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    names = [each.name for each in ROWS]
    entries = [{"row": name, "outcome": "done"} for name in names]
    entries[names.index("1m")]["outcome"] = "left out"
    del entries[names.index("9b-prefill")], entries[names.index("memcheck") - 1]
    first.write_text(json.dumps({"rows": entries}))
    asked = ["bench", "gpu", "--dry-run", "--rest", str(first), "--out", str(second)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    found = [entry["row"] for entry in json.loads(second.read_text())["rows"]]
    assert found == ["9b-prefill", "1m", "memcheck"]


def test_only_and_misuse(tmp_path):
    (torn := tmp_path / "torn.json").write_text('{"rows": 7}')
    result = CliRunner().invoke(main, ["bench", "gpu", "--dry-run", "--only", "parts"])
    assert result.exit_code == 0 and "restore of a state" in result.stdout
    assert "none of these figures means anything" in result.stdout
    for arguments, said in (
        (["--only", "nothing"], "the rows are ceilings"),
        (["--only", "parts"], "--dry-run"),
        (["--dry-run", "--out", "/nowhere/x.json"], "no such folder"),
        (["--dry-run", "--rest", str(torn)], "no report of a sitting"),
        (["--dry-run", "--rest", "/nowhere/x.json"], "does not exist"),
    ):
        result = CliRunner().invoke(main, ["bench", "gpu", *arguments])
        assert result.exit_code == 2 and said in result.output, result.output
