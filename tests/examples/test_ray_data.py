"""The example on a local Ray cluster: two models answer as one does, and nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import griffin
from griffin.batch import BatchRun, make_service
from tests.support.toy_folder import write_toy

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("ray") / "toy")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}},
    )
    yield
    ray.shutdown()


def answers(path: Path) -> dict[str, tuple[str, int]]:
    """Return the text of each answer and its tokens, by custom_id; each is there once."""
    found = {}
    for one in map(json.loads, path.read_text().splitlines()):
        assert one["error"] is None and one["custom_id"] not in found
        body: dict[str, Any] = one["response"]["body"]
        choice = body["choices"][0]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        found[one["custom_id"]] = text, body["usage"]["completion_tokens"]
    return found


@pytest.mark.usefixtures("cluster")
def test_two_models_answer_as_one_and_nothing_twice(folder, tmp_path, capsys):
    from examples.ray_data.answer import main

    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines: list[Any] = [f"a beginning that they share: {number}" for number in range(40)]
    lines += [{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = (str(source), str(target), f"model={folder}", "models=2", "slots=2")
    main(*given)
    alone = tmp_path / "alone.jsonl"
    service = make_service(griffin.load(folder, device="cpu"), name="toy", slots=3, chunk=16)
    BatchRun(service, source, alone, tmp_path / "errors", at_once=6).run()
    assert answers(target) == answers(alone) and len(answers(target)) == 41

    # What is there is not asked again; a torn line, a new one and a wrong one are.
    kept = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(kept[:-1]) + kept[-1][:30])
    with source.open("a") as stream:
        stream.write('no line\n{"custom_id": "bad", "prompt": "x", "max_tokens": "many"}\n"new"\n')
    with pytest.raises(SystemExit, match="1"):
        main(*given)
    again = target.read_bytes().splitlines(keepends=True)
    assert again[:40] == kept[:40] and len(again) == 42
    said = capsys.readouterr().err
    assert "line 42: the line is not JSON" in said and "bad: " in said and "2 could not be" in said


def test_an_argument_that_is_none():
    pytest.importorskip("ray.data")
    from examples.ray_data.answer import answer

    with pytest.raises(ValueError, match="no argument modle; there are model"):
        answer(None, {"modle": "nano"})  # pyright: ignore[reportArgumentType]
