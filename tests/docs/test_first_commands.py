"""What the pages about training begin with runs as it stands, in a folder of one's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT

PAGES = [
    *("adapters", "alignment", "finetuning", "preferences", "training", "training_data"),
    *("training_scale", "tuned_states"),
]
_FENCED = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)
_INDENTED = re.compile(r"(?:^    .*\n)+", re.M)


def first_block(page: str) -> str:
    """Return the commands that a page shows first."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    found = [match for match in (_FENCED.search(text), _INDENTED.search(text)) if match]
    first = min(found, key=lambda match: match.start())
    return first[1] if first.re is _FENCED else re.sub(r"^    ", "", first[0], flags=re.M)


def test_a_page_begins_with_its_command() -> None:
    for page in PAGES:
        text, block = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8"), first_block(page)
        assert "griffin" in block and "MODEL" not in block and "FOLDER" not in block, page
        assert text.index(block.splitlines()[0]) < 500, page


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_it_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    """With the folder `examples` of a checkout at hand; `griffin` is that of this Python."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", first_block(page)],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "runs").is_dir()
