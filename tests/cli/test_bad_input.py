"""What people do wrong and what disks do to them: one clear line each, and nothing lost."""

from __future__ import annotations

import resource

import pytest

from griffin.sessions import Store
from tests.support.terminal import Terminal

OPTIONS = ("--temperature", 0, "--max-tokens", 6)


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def store(run, folder, tmp_path):
    """A folder with a conversation of one turn, and one file of its state."""
    path = tmp_path / "store"
    told = run(
        "chat", "--model", folder, *OPTIONS, "--store", path, "--session", "kitchen", stdin="one\n"
    )
    assert told.exit_code == 0
    assert (
        run(
            "state", "export", "kitchen", "-o", tmp_path / "kitchen.state", "--store", path
        ).exit_code
        == 0
    )
    return path


@pytest.mark.parametrize(
    "name", ["a/b", "../kitchen", "/etc/passwd", ".hidden", "a\\b", "two words"]
)
def test_a_name_that_could_be_a_path_is_refused_by_everything_that_takes_one(
    run, folder, store, tmp_path, name
):
    kept = ("--store", store)
    commands = [
        ("chat", "--model", folder, "--session", name, *kept),
        ("state", "fork", "kitchen", name, *kept),
        ("state", "fork", name, *kept),
        ("state", "import", tmp_path / "kitchen.state", "--name", name, *kept),
        ("state", "export", name, "-o", tmp_path / "out.state", *kept),
        ("state", "rm", name, *kept),
        ("state", "show", name, *kept),
    ]
    for command in commands:
        found = run(*command, stdin="never said\n")
        assert found.exit_code == 2 and not found.stdout, command
        assert len(found.stderr.splitlines()) == 2 and "Traceback" not in found.stderr, found.stderr
    talk = run(
        *("chat", "--model", folder, *OPTIONS, *kept),
        stdin=f"/fork {name}\n/save {name}\n/load {name}\n/tokens\n",
    )
    assert talk.exit_code == 0 and len(talk.stdout.splitlines()) == 4
    assert (
        talk.stdout.count("cannot name a session") >= 2
        and "tokens in the conversation" in talk.stdout
    )
    with Store(store) as opened:
        assert [info.name for info in opened.list()] == ["kitchen"] and opened.check() == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kitchen.state", "store"]


@pytest.mark.parametrize("limit", [20, 2000, 9000, 40_000, 80_000])
def test_a_disk_that_is_full_loses_nothing(run, folder, store, limit):
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    arguments = ("--model", folder, *OPTIONS, "--store", store, "--session", "kitchen")
    with Terminal("chat", *arguments, first=full) as terminal:
        terminal.type("two")
        terminal.type("three")
        terminal.type("/bye")
        status = terminal.wait()
    shown = terminal.output
    assert "Traceback" not in shown and status in (0, 2)
    with Store(store) as opened:
        assert opened.check() == () and len(opened.turns("kitchen")) in (1, 2, 3)
        if status == 2 or len(opened.turns("kitchen")) < 3:
            assert shown.count("no room to write") == 1, shown
        if status == 0:  # it went on, in memory if not on the disk
            assert shown.count("two") and shown.count("three")
        turns = len(opened.turns("kitchen"))
    again = run("chat", *arguments, stdin="four\n")
    assert again.exit_code == 0 and "resumed kitchen" in again.stderr
    with Store(store) as opened:
        assert len(opened.turns("kitchen")) == turns + 1


def test_state_files_on_a_full_disk(folder, store, tmp_path):
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    (tmp_path / "book").write_text("Once upon a time.\n" * 50)
    out = tmp_path / "out"
    out.mkdir()
    for command in (
        (
            "state",
            "build",
            "--from",
            tmp_path / "book",
            "-o",
            out / "book.state",
            "--model",
            folder,
        ),
        ("state", "export", "kitchen", "-o", out / "kitchen.state", "--store", store),
    ):
        with Terminal(*command, first=full) as terminal:
            assert terminal.wait() == 2, terminal.output
        assert "no room to write" in terminal.output and "Traceback" not in terminal.output
        assert not list(out.iterdir())
