"""`griffin evaluate` from end to end: killed at three places and resumed, the same JSON."""

from __future__ import annotations

import json
import os
import signal

import pytest
from click.testing import CliRunner

import griffin
from griffin.adapters import open_adapter
from griffin.cli import main
from griffin.evaluate.answer_log import AnswerLog
from tests.support.toy_adapters import write_adapter

QUESTIONS = [
    {"question": f"class {name}:", "choices": [" pass", " return", "\n"], "answer": n}
    for n, name in enumerate(("Owl", "Cat", "Bee"))
]
COMMON = """dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/owls.jsonl}}
test_split: test
doc_to_text: "{{question}}"
"""
CHOICE = """task: owls
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list: [{metric: acc}]
"""
WRITING = """task: songs
output_type: generate_until
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["never"], max_gen_toks: 6}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def arguments(tmp_path, folder, manager, monkeypatch):
    """The command, on questions of our own: three to choose from, three to answer."""
    from griffin.evaluate import harness

    monkeypatch.setattr(harness, "TaskManager", lambda **_: manager)
    lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
    (tmp_path / "owls.jsonl").write_text(lines)
    files = []
    for name, kind in (("owls", CHOICE), ("songs", WRITING)):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(kind + COMMON.replace("FOLDER", str(tmp_path)))
    monkeypatch.setattr("sys.argv", ["griffin", "evaluate", "..."])
    names = ",".join(map(str, files))
    return ["evaluate", "--model", str(folder), "--tasks", names, "--offline"]


def killed(arguments, place):
    """Run the command in a process that is killed as it keeps its answer number `place`."""
    pid = os.fork()
    if not pid:
        add, count = AnswerLog.add, 0

        def dying(self, key, answer):
            nonlocal count
            count += 1
            if count == place:
                self._stream.write(b'["torn')
                self._stream.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            add(self, key, answer)

        AnswerLog.add = dying
        try:
            CliRunner().invoke(main, arguments)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.thorough
def test_killed_and_resumed_at_three_places(arguments, tmp_path):
    whole = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "whole.json")])
    assert whole.exit_code == 0, whole.output
    expected = (tmp_path / "whole.json").read_bytes()
    kept = (tmp_path / "whole.answers.jsonl").read_bytes().count(b"\n") - 1
    assert kept == 3 * 3 + 3
    for place in (1, 7, 11):  # the first, among choices, among written answers
        out = tmp_path / f"{place}.json"
        killed([*arguments, "--out", str(out)], place)
        assert not out.exists()
        again = CliRunner().invoke(main, [*arguments, "--out", str(out)])
        assert again.exit_code == 0, again.output
        assert (f"going on with {place - 1} answers" in again.output) == (place > 1)
        assert out.read_bytes() == expected


def test_what_the_results_say(arguments, tmp_path):
    out = tmp_path / "found.json"
    done = CliRunner().invoke(main, [*arguments, "--out", str(out), "--limit", "2"])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert [(each["task"], each["metric"], each["n"]) for each in found["results"]] == [
        ("owls", "acc", 2),
        ("songs", "exact_match", 2),
    ]
    assert found["settings"]["limit"] == 2 and found["versions"]["lm_eval"]
    assert found["settings"]["seed"] == 1234 and found["command"] == "griffin evaluate ..."
    assert (found["format"], found["device"], found["adapter"]) == ("float32", "cpu", "")
    assert all(each["version"] for each in found["results"])
    assert found["tokens"]["written"] == 12 and len(found["weights"]) == 32
    assert "owls" in done.output and "tokens asked" in done.output


def test_another_format_does_not_go_on_with_these_answers(arguments, tmp_path):
    """The files of the weights are the same."""
    out = ["--out", str(tmp_path / "found.json")]
    done = CliRunner().invoke(main, [*arguments, *out, "--quantize", "int8"])
    assert done.exit_code == 0, done.output
    other = CliRunner().invoke(main, [*arguments, *out, "--quantize", "int4"])
    assert other.exit_code == 2 and "of another model" in other.output, other.output


def test_tasks_are_answered_with_an_adapter(arguments, folder, tmp_path):
    """Its digest is in the results, and answers of another one are not gone on with."""
    owl, bat = (write_adapter(tmp_path / name, seed=n) for n, name in enumerate(("owl", "bat")))
    out = ["--out", str(tmp_path / "found.json")]
    done = CliRunner().invoke(main, [*arguments, *out, "--adapter", str(owl)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["adapter"] == open_adapter(owl).digest()
    kept = [
        json.loads(line)
        for line in (tmp_path / "found.answers.jsonl").read_text().split("\n")[1:-1]
    ]
    measured = [answer[0] for _, answer in kept if isinstance(answer, list)]
    llm = griffin.load(folder, adapter=owl)
    question = QUESTIONS[0]["question"]
    wanted = sum(llm.score(question + " pass").logprobs) - sum(llm.score(question).logprobs)
    assert min(abs(each - wanted) for each in measured) < 1e-3
    for other in ((), ("--adapter", str(bat))):
        again = CliRunner().invoke(main, [*arguments, *out, *other])
        assert again.exit_code == 2 and "of another model" in again.output, again.output


def test_the_plan_writes_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [*arguments, "--plan", "--json"])
    assert done.exit_code == 0, done.output
    tasks = json.loads(done.output[done.output.index("{") :])["tasks"]
    assert [task["written"] for task in tasks] == [0, 18, 18]
    assert not (tmp_path / "evaluation.json").exists()


def test_misuse_is_a_line(arguments):
    for given, said in (
        (["evaluate", "--model", "nano"], "say what to measure"),
        ([*arguments[:3], "--tasks", " , "], "names none"),
        ([*arguments, "--state", "x"], "x"),
    ):
        done = CliRunner().invoke(main, given)
        assert done.exit_code == 2 and said in done.output, done.output
