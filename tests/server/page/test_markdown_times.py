"""Every loop of the page's markdown is linear, whatever is written: four times the text, four times
the work. In node, on a stand-in for the DOM, by the process's own time."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from griffin.server.http.static import read_page

SCRIPT = Path(__file__).parents[2] / "support" / "markdown_times.mjs"
LENGTHS = (4_000, 16_000)
# Linear is 4, which noise may double; what is done within so many seconds is quick enough (the
# longest of them takes 0.03).
MOST_TIMES, QUICK = 8, 0.2

PIECES = (
    *("*", "_", "~~ ", "~~~", "**a ", "*a ", "*a_b", "_ *", "***", "a*", "`", "`a", "`*", "*\\"),
    *("[", "[](", "[a](", "![[", "[*", "[a](http://x ", "<https://", "http://", "http://x,", "<"),
    *("> ", ">", "- ", "-", "- - ", "1. ", "- [x] ", "#", "# ", "```", "|", "|-", "|:-", ":"),
    *(" ", "\t", "\\", "a", "\u2028", "\r", "="),
)
SHAPES = ("repeat", "ended", "odd", "growing", "stairs", "lines", "blocks")
TEXTS = [
    *((shape, piece) for piece in PIECES for shape in SHAPES),
    *(("table", piece) for piece in ("|", "|a|b", "a|", "||")),
    *(("nested", pair) for pair in ("[ ](http://x)", "* *", "** **", "![ ](http://x)", "`` `")),
    *(
        ("within", pair)
        for pair in (
            *("#… ", "-… ", "1.… ", "- [x]… ", "```… ", "~~~…~", "~~~…`", "|-\n|-\n…|", "> … > "),
            *("*…**a** ", "*… *** ", "`…`` ", "[… a]", "<http://…a", "http://…)", "- a\n…  - b\n"),
        )
    ),
]
# Runs that are undone at their end: which a pattern with two ways would try again from each place.
UNDONE = [("within", f"{begins}…{each}") for begins in ("# a", "- ", "> ", "") for each in " \t~`#"]


def node() -> str:
    found = shutil.which("node")
    if found is None:  # the browser's driver brings one
        driver = pytest.importorskip("playwright._impl._driver", reason="there is no node")
        found = str(driver.compute_driver_executable()[0])
    return found


def times(folder: Path, texts: list[tuple[str, str]]) -> dict[str, list[float]]:
    """Return the seconds that each text takes at each of the lengths."""
    for name, file in read_page().items():
        if name.endswith(".js"):
            (folder / Path(name).name).write_bytes(file.body)
    (folder / "package.json").write_text('{"type": "module"}')
    asked = {"module": str(folder / "markdown.js"), "texts": texts, "lengths": LENGTHS}
    done = subprocess.run(
        [node(), SCRIPT], input=json.dumps(asked).encode(), capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


@pytest.mark.thorough
def test_time_grows_as_the_text_does(tmp_path):
    found = times(tmp_path, [*TEXTS, *UNDONE])
    slow = {
        text: (short, long)
        for text, (short, long) in found.items()
        if long > max(MOST_TIMES * short, QUICK)
    }
    assert not slow and len(found) > 300
