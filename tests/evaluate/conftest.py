"""A toy model that reads text, and lm-eval with made-up data: nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import lm_eval.tasks
import pytest

import griffin
from griffin.evaluate import harness
from griffin.evaluate.long_tasks import FOLDER
from griffin.llm import LLM
from tests.support.made_up_data import load_dataset
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("evaluate") / "toy")


@pytest.fixture(scope="session")
def llm(folder: Path) -> LLM:
    return griffin.load(folder)


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
