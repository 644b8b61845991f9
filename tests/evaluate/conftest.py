"""A toy model that reads text, and lm-eval with made-up data: nothing is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import lm_eval.tasks
import pytest

import griffin
from griffin.cli import main
from griffin.evaluate import harness
from griffin.evaluate.long_tasks import FOLDER
from griffin.llm import LLM
from tests.support.made_up_data import load_dataset
from tests.support.toy_folder import write_toy
from tests.support.toy_states import write_tuned


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("evaluate") / "toy")


@pytest.fixture(scope="session")
def llm(folder: Path) -> LLM:
    return griffin.load(folder)


@pytest.fixture(scope="session", params=[1, 5])
def tuned_llm(request: pytest.FixtureRequest, folder: Path) -> LLM:
    """The toy behind a tuned state of so many keys."""
    file = folder.parent / f"{request.param}.state"
    return griffin.load(folder, state=write_tuned(folder, file, keys=request.param))


@pytest.fixture(scope="session")
def random_2b(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """RecurrentGemma-2B's shape in int8, of random weights; 5.4 GB of disk on the way."""
    folder = tmp_path_factory.mktemp("evaluate") / "2b"
    main(["convert", "--random", "recurrentgemma-2b", str(folder)], standalone_mode=False)
    llm = griffin.load(folder, quantize="int8")
    shutil.rmtree(folder)
    return llm


@pytest.fixture(scope="session")
def manager() -> lm_eval.tasks.TaskManager:
    """The index of all tasks, which takes seconds to make."""
    return lm_eval.tasks.TaskManager(include_path=str(FOLDER))


@pytest.fixture
def made_up(
    manager: lm_eval.tasks.TaskManager, monkeypatch: pytest.MonkeyPatch
) -> Iterator[lm_eval.tasks.TaskManager]:
    """Let every data set be ten made-up rows."""
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(harness, "TaskManager", lambda **_: manager)
    yield manager
