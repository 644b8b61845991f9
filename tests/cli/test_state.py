"""`griffin state`: build, ls, show, fork, diff, export, import, rm."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest

import griffin
from griffin.sessions import NOTHING, Store, extend_chain, load_state_file

OPTIONS = ("--temperature", 0, "--max-tokens", 9)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No test writes to the user's own folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "griffin" / "sessions"


@pytest.fixture(scope="module")
def llm(folder):
    return griffin.load(folder, device="cpu")


@pytest.fixture
def chat(run, folder):
    def call(*lines, options=()):
        return run(
            "chat", "--model", folder, *OPTIONS, *options, stdin="".join(f"{x}\n" for x in lines)
        )

    return call


@pytest.fixture
def built(run, folder, tmp_path):
    """A state file of a text longer than the window, and its text."""
    text = "The handbook says: press the button. " * 9
    (tmp_path / "handbook.txt").write_text(text)
    path = tmp_path / "handbook.state"
    result = run(
        "state", "build", "--model", folder, "--from", tmp_path / "handbook.txt", "-o", path
    )
    assert result.exit_code == 0, result.output
    return path, text, result.stdout


def test_build_reads_a_text_and_says_what_is_left_of_it(built, llm):
    path, text, output = built
    ids = llm.tokenizer.encode(text)
    size = path.stat().st_size
    assert (
        output == f"{path}: the gist of {len(ids)} tokens; the last 32 verbatim ({size:,} bytes)\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    info, state = load_state_file(path)
    assert (info.tokens, info.pending, info.title) == (len(ids), (ids[-1],), "handbook.txt")
    assert info.chain == extend_chain(NOTHING, ids).hex() and int(state.pos[0]) == len(ids) - 1


def test_build_from_standard_input_is_the_same(built, run, folder, tmp_path):
    path, text, _ = built
    result = run(
        *(
            "state",
            "build",
            "--model",
            folder,
            "--from",
            "-",
            "-o",
            tmp_path / "b.state",
            "--title",
            "book",
        ),
        "--json",
        stdin=text,
    )
    about = json.loads(result.stdout)
    assert about["title"] == "book" and about["verbatim"] == 32
    shown = run("state", "diff", path, tmp_path / "b.state", "--json")
    assert json.loads(shown.stdout)["equal"] is True


def test_chat_begins_from_a_state(built, chat, llm, home, tmp_path, monkeypatch):
    path, text, _ = built
    turn = llm.chat_format.ids([{"role": "user", "content": "one"}])[1:]
    answer = llm.generate([*llm.tokenizer.encode(text), *turn], temperature=0, max_tokens=9).text
    kept = chat("one", options=("--state", path, "--session", "help"))
    assert kept.stdout == f"{answer}\n" and f"began help from {path}: " in kept.stderr
    monkeypatch.chdir(tmp_path)
    assert chat("one", options=("--state", "handbook", "--no-persist")).stdout == f"{answer}\n"
    again = chat("/undo", "two", "/clear", "one", options=("--state", "help"))
    assert again.stdout.startswith("at turn 1: (state)") and again.stdout.endswith(f"\n{answer}\n")
    with Store(home) as store:
        assert len(store.list()) == 2 and store.show("help").turns == 2, (
            "the original stays as it is"
        )


def test_list_show_fork_and_remove(chat, run, home):
    listed = run("state", "ls")
    assert listed.stdout.startswith("no conversations in ") and "a server's" not in listed.stderr
    (home.parent / "server").mkdir(parents=True)
    assert f"a server's: griffin state ls --store {home.parent / 'server'}" in " ".join(
        run("state", "ls").stderr.split("\n")
    )
    chat("one", "two", options=("--session", "x"))
    first, line = run("state", "ls").stdout.splitlines()
    assert first.split() == ["name", "turns", "tokens", "bytes", "model", "used", "begins"]
    assert line.split()[:2] == ["x", "2"] and line.split()[4] == "toy" and "> one" in line
    assert "model:       toy\n" in run("state", "show", "x").stdout
    listed = json.loads(run("state", "ls", "--json").stdout)
    assert [(each["name"], each["turn_count"]) for each in listed] == [("x", 2)]
    assert run("state", "fork", "x", "y", "--at", 1).stdout.startswith("y: ")
    shown = json.loads(run("state", "show", "y", "--json").stdout)
    assert shown["parent"] == "x" and [turn["number"] for turn in shown["turns"]] == [1]
    assert (
        "> one\n" in run("state", "show", "x").stdout
        and "weights " in run("state", "show", "x").stdout
    )
    result = run("state", "rm", "x", "nobody")
    assert result.exit_code == 2 and "no session 'nobody'" in result.stderr
    assert run("state", "rm", "x").stdout == "deleted x\n"
    assert [each["name"] for each in json.loads(run("state", "ls", "--json").stdout)] == ["y"]
    with Store(home) as store:
        assert store.check() == ()


def test_export_import_and_go_on(chat, run, tmp_path):
    chat("one", options=("--session", "x"))
    answer = chat("two", options=("--session", "x")).stdout
    path = tmp_path / "x.state"
    assert (
        run("state", "export", "x", "-o", path, "--at", 1).stdout
        == f"{path}: {path.stat().st_size:,} bytes\n"
    )
    shown = run("state", "show", path).stdout
    assert "> one\n" in shown and re.search(r"^model: +\S*toy$", shown, re.M)
    again = run("state", "export", "x", "-o", path)
    assert again.exit_code == 2 and "--force replaces it" in again.stderr
    imported = run("state", "import", path, "--name", "y", "--json")
    assert json.loads(imported.stdout)["name"] == "y"
    assert chat("two", options=("--session", "y")).stdout == answer
    assert json.loads(run("state", "diff", "x", "y", "--json").stdout)["equal"] is True


def test_diff_is_by_layer_and_by_turn(chat, run):
    chat("one", "two", options=("--session", "x"))
    lines = run("state", "diff", "x@1", "x").stdout.splitlines()
    assert lines[1].split() == ["layer", "kind", "part", "distance", "cosine"]
    assert [line.split()[:3] for line in lines[2:4]] == [
        ["0", "recurrent", "lru"],
        ["0", "recurrent", "conv"],
    ]
    assert all(0 < float(line.split()[3]) <= 2 for line in lines[2:])
    assert "equal" in run("state", "diff", "x@2", "x").stdout
    assert run("state", "diff", "x@1", "x@z").exit_code == 2


def test_wrong_input_is_one_line_and_leaves_nothing(built, chat, run, folder, tmp_path, home):
    path, _, _ = built
    chat("one", options=("--session", "x"))
    torn = tmp_path / "torn.state"
    torn.write_bytes(path.read_bytes()[:-9])
    empty = tmp_path / "empty.txt"
    empty.touch()
    before = sorted(p.name for p in tmp_path.iterdir())
    build = ("state", "build", "--model", folder)
    for arguments, line in (
        ((*build, "--from", tmp_path / "none", "-o", tmp_path / "o"), "there is no file"),
        ((*build, "--from", empty, "-o", tmp_path / "o"), "empty"),
        ((*build, "--from", empty, "-o", path), "--force replaces it"),
        ((*build, "--from", empty, "-o", tmp_path / "a" / "o"), "there is no folder"),
        (("state", "show", torn), str(torn)),
        (("state", "show", "nobody"), "no session 'nobody'"),
        (("state", "show", "a/b"), "there is no state file a/b"),
        (("state", "import", torn), str(torn)),
        (("state", "import", tmp_path / "none"), "there is no state file"),
        (("state", "import", path, "--name", "a/b"), "cannot name a session"),
        (("state", "import", path, "--name", "x"), "already"),
        (("state", "fork", "x", "x"), "already"),
        (("state", "ls", "--store", tmp_path / "none"), "there is no such folder"),
        (("state", "export", "x", "-o", "/dev/null", "--force"), "is a device"),
        ((*build, "--from", empty, "-o", "/dev/null", "--force"), "is a device"),
        (("state", "export", "x", "-o", tmp_path / "o", "--at", 9), "no turn 9"),
        (("chat", "--model", folder, "--state", torn), str(torn)),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert line in result.stderr.replace("\n", " ") and "Traceback" not in result.output, (
            result.stderr
        )
    assert "see `griffin state show --help`" in run("state", "show", "nobody").stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    with Store(home) as store:
        assert [info.name for info in store.list()] == ["x"]


def test_a_state_of_another_model_names_what_differs(built, run, tmp_path):
    from tests.support.toy_folder import write_toy

    other = write_toy(tmp_path / "other", vocab_size=520)
    result = run("chat", "--model", other, "--state", built[0], "--no-persist", stdin="one\n")
    assert result.exit_code == 2 and "belongs to another model (config: " in result.stderr
    assert not any(os.scandir(tmp_path / "data")) if (tmp_path / "data").exists() else True
