"""A file of requests to a file of answers, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import griffin
from griffin.batch import BatchRun
from griffin.batch.lines import seed_of
from griffin.batch.results import Results
from griffin.cli import main
from griffin.llm import LLM
from griffin.server.build import build
from tests.support.terminal import become
from tests.support.toy_adapters import write_adapter
from tests.support.toy_folder import write_toy
from tests.support.waiting import until

PREFIX = "a beginning that all of them share, longer than a chunk of the engine is: " * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("batch") / "toy")


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return griffin.load(folder, device="cpu")


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> dict[str, str]:
    return {
        one["custom_id"]: one["response"]["body"]["choices"][0].get("text") for one in read(path)
    }


def run(llm: LLM, source: Path, target: Path, slots: int = 3) -> Any:
    service = build(llm, name="toy", slots=slots, max_waiting=slots, chunk=16)
    errors = target.with_suffix(".errors")
    return BatchRun(service, source, target, errors, at_once=2 * slots).run()


def test_answers_are_those_of_the_prompts_alone_in_their_order(llm: LLM, tmp_path: Path) -> None:
    prompts = [f"{PREFIX}{number}" for number in range(9)]
    source = write(
        tmp_path / "in",
        *prompts,
        {"custom_id": "cold", "prompt": "x", "temperature": 0, "max_tokens": 4},
        {"custom_id": "talk", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4},
    )
    count = run(llm, source, tmp_path / "out")
    found = read(tmp_path / "out")
    assert [one["custom_id"] for one in found] == [
        *(f"line-{number}" for number in range(1, 10)),
        "cold",
        "talk",
    ]
    said = texts(tmp_path / "out")
    for number, prompt in enumerate(prompts, 1):
        name = f"line-{number}"
        assert said[name] == llm.generate(prompt, max_tokens=16, seed=seed_of(name)).text
    assert said["cold"] == llm.generate("x", temperature=0, max_tokens=4).text
    assert (count.answered, count.bad, count.before) == (11, 0, 0)
    assert count.cached_tokens > 0 and count.generated_tokens == sum(
        one["response"]["body"]["usage"]["completion_tokens"] for one in found
    )
    assert not (tmp_path / "out.errors").exists()


def test_lines_name_adapters_and_each_gets_its_own_answers(folder: Path, tmp_path: Path) -> None:
    """The base and two adapters in one batch: a line has what its model says alone."""
    adapters = {name: write_adapter(tmp_path / name, seed=n) for n, name in enumerate("ab")}
    body: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
    lines = [
        {"custom_id": f"{model} {n}", "model": model, "prompt": f"{PREFIX}{n}", **body}
        for n in range(3)
        for model in ("toy", *adapters)
    ]
    unknown = {"custom_id": "unknown", "model": "c", "prompt": "x"}
    source = write(tmp_path / "in", *lines, unknown)
    count = run(griffin.load(folder, device="cpu", adapter=adapters), source, tmp_path / "out")
    assert (count.answered, count.bad) == (9, 1)
    said = texts(tmp_path / "out")
    for model in ("toy", *adapters):
        alone = griffin.load(folder, device="cpu", adapter=adapters.get(model))
        for n in range(3):
            assert said[f"{model} {n}"] == alone.generate(f"{PREFIX}{n}", **body).text
    assert len({said[f"{model} 0"] for model in ("toy", *adapters)}) == 3
    assert "'c'" in read(tmp_path / "out.errors")[0]["error"]["message"]


def test_what_is_there_is_not_asked_again_and_a_torn_line_is(llm: LLM, tmp_path: Path) -> None:
    source = write(tmp_path / "in", *(f"prompt {number}" for number in range(5)))
    run(llm, source, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out").write_bytes(b"".join(lines[:2]) + lines[2][:-20])
    count = run(llm, source, tmp_path / "out")
    assert (count.before, count.answered) == (2, 3)
    assert texts(tmp_path / "out") == texts(tmp_path / "whole")
    assert run(llm, source, tmp_path / "out").answered == 0


def test_bad_lines_are_told_and_tried_again(llm: LLM, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    lines = ["good", {"custom_id": "bad", "prompt": "x", "temperature": -3}, "also good"]
    write(source, *lines)
    with source.open("a") as stream:
        stream.write("no json\n\n" + json.dumps({"custom_id": "line-1", "prompt": "y"}) + "\n")
    count = run(llm, source, target)
    assert (count.lines, count.answered, count.bad) == (5, 2, 3)
    told = {one["line"]: one for one in read(tmp_path / "out.errors")}
    assert told[2]["custom_id"] == "bad" and told[2]["status_code"] == 400
    assert "temperature" in told[2]["error"]["message"]
    assert "not JSON" in told[4]["error"]["message"]
    assert "that of line 1" in told[6]["error"]["message"]
    write(source, "good", {"custom_id": "bad", "prompt": "x"}, "also good")
    count = run(llm, source, target)
    assert (count.before, count.answered, count.bad) == (2, 1, 0)
    assert not (tmp_path / "out.errors").exists()


def test_files_that_are_no_results_or_anothers_stay_as_they_are(llm: LLM, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", "x"), tmp_path / "out"
    requests = '{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}\n'
    for text in ('{"something": 1}\n', "a note without an end", requests, requests[:-1]):
        target.write_text(text)
        with pytest.raises(ValueError, match="line 1 is no result of a batch"):
            run(llm, source, target)
        assert target.read_text() == text
    target.unlink()
    with Results(target), pytest.raises(ValueError, match="written by another process"):
        Results(target)
    (tmp_path / "link").symlink_to(source)
    for one in (source, tmp_path / "link", tmp_path / "none" / "out"):
        with pytest.raises(ValueError, match=r"three different|cannot be written"):
            run(llm, source, one)


def killed(folder: Path, source: Path, target: Path, after: int, sign: int) -> int:
    """Run the command in a process that gets a signal once it has written some lines."""
    pid = os.fork()
    if not pid:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        become(("batch", source, target, "--model", folder, "--slots", 2, "--threads", 1))
    ended: list[int] = []
    waiter = threading.Thread(target=lambda: ended.append(os.waitpid(pid, 0)[1]))
    waiter.start()
    lines = -1

    def enough() -> bool:
        nonlocal lines
        lines = target.read_bytes().count(b"\n") if target.exists() else 0
        return lines >= after or not waiter.is_alive()

    until(enough)
    if waiter.is_alive():
        os.kill(pid, sign)
    waiter.join()
    return os.waitstatus_to_exitcode(ended[0])


@pytest.mark.parametrize(
    "kills", [2, pytest.param(10, marks=pytest.mark.slow)], ids=["twice", "ten times"]
)
def test_a_batch_that_is_killed_goes_on(folder: Path, tmp_path: Path, kills: int) -> None:
    source, target = tmp_path / "in", tmp_path / "out.jsonl"
    write(source, *({"prompt": f"{PREFIX}{n}", "max_tokens": 40} for n in range(8 * kills)))
    for kill in range(1, kills + 1):
        sign = signal.SIGKILL if kill % 2 else signal.SIGINT
        status = killed(folder, source, target, after=4 * kill, sign=sign)
        assert status in (-signal.SIGKILL, 130), status
    assert killed(folder, source, target, after=1 << 30, sign=signal.SIGKILL) == 0
    undisturbed = tmp_path / "undisturbed.jsonl"
    assert killed(folder, source, undisturbed, after=1 << 30, sign=signal.SIGKILL) == 0
    assert [one["custom_id"] for one in read(target)] == [
        f"line-{number}" for number in range(1, 8 * kills + 1)
    ]
    assert texts(target) == texts(undisturbed)


def test_a_batch_that_ends_leaves_no_thread(llm: LLM, tmp_path: Path) -> None:
    before = threading.active_count()
    run(llm, write(tmp_path / "in", "x", "y"), tmp_path / "out")
    end = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_the_verb_fails_where_a_line_did_whatever_it_prints(folder: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"prompt": 7}, {"prompt": "a"})
    for options in ([], ["--json"]):
        out = tmp_path / f"out{len(options)}.jsonl"
        words = ["batch", str(source), str(out), "-m", str(folder), *options]
        assert CliRunner().invoke(main, words).exit_code == 1
