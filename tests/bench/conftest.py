"""A toy model for the whole room, and programs that run in the tests' own process, for speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.bench import run
from griffin.bench.process import Stopped
from griffin.bench.worker import WorkerTasks
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bench") / "toy")


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Here:
    """What a Worker is, without the process: a patience below a millisecond is never enough."""

    def __init__(self, name: str, root: Path | None = None) -> None:
        self.name, self.root = name, root
        self._runner = WorkerTasks()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def ask(self, call: str, patience: float | None = None, **arguments: Any) -> Any:
        if patience is not None and patience < 1e-3:
            raise Stopped(f"{self.name} was stopped: {call} took longer than {patience} s")
        answer = getattr(self._runner, call)(**json.loads(json.dumps(arguments)))
        return json.loads(json.dumps(answer))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run programs in this process."""
    monkeypatch.setattr(run, "Worker", Here)
