"""Every block of Python in README and docs runs as it is printed.

A random toy lies in the Hub's cache under the printed names, and the files that pages mention lie
in the folder; a server stands for that of the reader. The pages of docs/clients are run by
tests/server/contract, transformers.md by tests/hf, which has the libraries that it needs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import griffin
from griffin import checkpoints
from tests.support.live_server import NAME, serving
from tests.support.pages import ROOT, run_page
from tests.support.toy_folder import write_toy

ELSEWHERE = {"docs/transformers.md"}
ADDRESS = "http://127.0.0.1:8000"
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    if "```python" in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a reader of the pages would have."""
    home = tmp_path_factory.mktemp("reader")
    toy = write_toy(home / "toy")
    for name in ("recurrentgemma-2b", "recurrentgemma-2b-it"):
        cache = home / "hub" / f"models--google--{name}"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs/main").write_text("0" * 40)
        shutil.copytree(toy, cache / "snapshots" / ("0" * 40))
    checkpoints.quantize(toy, home / "2b-int4", "int4")
    checkpoints.convert(toy, home / "toy.pt", to="deepmind-torch")
    (home / "handbook.txt").write_text("Only Ada may sign a contract.\n" * 20)
    (home / "examples").symlink_to(ROOT / "examples")
    (home / "access.log").write_text(json.dumps({"status": 500}) + "\n")
    return home


@pytest.fixture(autouse=True)
def reader(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in a folder of one's own, with the files of `home`."""
    for path in home.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for place in ("constants", "_snapshot_download.constants"):
        monkeypatch.setattr(f"huggingface_hub.{place}.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_a_page_runs_as_printed(page: str, home: Path) -> None:
    if ADDRESS not in (ROOT / page).read_text(encoding="utf-8"):
        assert run_page(ROOT / page)
        return
    with serving(griffin.load(home / "toy", device="cpu"), state_data=True) as live:
        instead = {ADDRESS: live.url, 'model="google/recurrentgemma-2b-it"': f'model="{NAME}"'}
        assert run_page(ROOT / page, instead)


def test_there_is_something_to_run() -> None:
    assert len(PAGES) > 10 and set(PAGES) >= ELSEWHERE
