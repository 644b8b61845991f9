"""`griffin chat`: the terminal's side. What a conversation does is tested in tests/conversation."""

from __future__ import annotations

import errno
import os
import re
import signal

import pytest

import griffin
from griffin.cli.chat import repl
from griffin.cli.chat.slash_commands import parse
from griffin.conversation import Conversation, begin
from griffin.sessions import Store

FIELDS = {"temperature": 0, "max_tokens": 9}
OPTIONS = ("--temperature", 0, "--max-tokens", 9)


@pytest.fixture(scope="module")
def llm(folder):
    return griffin.load(folder, device="cpu")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No test writes to the user's own folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "griffin" / "sessions"


@pytest.fixture
def chat(run, folder):
    def call(*lines, options=()):
        return run(
            "chat", "--model", folder, *OPTIONS, *options, stdin="".join(f"{x}\n" for x in lines)
        )

    return call


def alone(llm, *messages, system=None):
    """Return the answers of one uninterrupted conversation, and where it ends."""
    talk = Conversation(llm, begin(llm, None, system=system), sampling=dict(FIELDS))
    return ["".join(talk.say(message)) for message in messages], talk


def test_a_message_that_was_not_closed_is_not_lost_in_silence(chat):
    result = chat('"""one', "two")
    assert result.exit_code == 0 and '""" was not closed' in result.stderr
    assert '""" was not closed' not in chat('"""one', 'two"""').stderr


def test_the_terminal(chat, llm, home, folder):
    result = chat(
        *(
            "one",
            '"""two',
            'lines"""',
            "/tokens",
            "/set temperature 0.5",
            "/set top_p 7",
            "/set temprature 1",
        ),
        *(
            "/nothing",
            "/clear x",
            "/clear",
            "/tokens",
            "/system Be kind.",
            "one",
            "/help",
            "/bye",
            "never said",
        ),
    )
    assert result.exit_code == 0, result.output
    (first, second), talk = alone(llm, "one", "two\nlines")
    count = talk.tokens
    assert result.stdout.startswith(f"{first}\n{second}\n{count:,} tokens in the conversation\n")
    for line in (
        "temperature = 0.5\n",
        "top_p must be",
        "did you mean 'temperature'",
        "no command /nothing",
        "/clear takes nothing after it",
        "a new conversation\n0 tokens in the conversation\n",
        "this system text from now on\n",
        "/system [TEXT]",
    ):
        assert line in result.stdout
    assert result.stdout.rstrip().endswith("what was said stays said")
    assert re.search(r"began session-[0-9a-f]{8}\n", result.stderr)
    with Store(home) as store:
        assert [info.turns for info in store.list()] == [3]
        wanted = {"sampling": {"temperature": 0.5}, "system": "Be kind.", "model": str(folder)}
        assert store.list()[0].settings == wanted


def test_quit_and_resume_equals_going_on(chat, llm):
    answers, talk = alone(llm, "one", "two")
    assert chat("one").stdout == f"{answers[0]}\n"
    again = chat("two", "/tokens")
    assert again.stdout.startswith(f"{answers[1]}\n{talk.tokens:,} tokens")
    found = re.search(
        r"resumed (session-\w+): ([\d,]+) tokens in ([\d,]+) bytes, [\d.]+ ms", again.stderr
    )
    assert found, again.stderr
    _, first = alone(llm, "one")
    assert found[2] == f"{first.tokens:,}" and found[3] == f"{first.context.state.nbytes:,}"


def test_new_and_named_conversations(chat, home):
    chat("one", options=("--session", "kitchen"))
    chat("two", options=("--new",))
    assert "resumed kitchen: " in chat("three", options=("--session", "kitchen")).stderr
    assert "resumed kitchen: " in chat(options=()).stderr, "the one used last"
    with Store(home) as store:
        assert [info.turns for info in store.list()] == [2, 1]


def test_a_conversation_without_a_word_leaves_nothing(chat, home):
    chat()
    chat("/load x", "/help", options=("--session", "x"))
    with Store(home) as store:
        assert store.list() == ()


def test_no_persist_writes_nothing(chat, home, llm):
    answers, _ = alone(llm, "one", "two", "two")
    result = chat("one", "/undo", "one", "two", options=("--no-persist",))
    assert result.stdout.startswith(
        f"{answers[0]}\nbefore the first turn\n{answers[0]}\n{answers[1]}\n"
    )
    assert "not kept" in result.stderr and not home.exists()


def test_going_back_and_elsewhere(chat, llm):
    answers, _ = alone(llm, "one", "two", "three")
    (_, other), _ = alone(llm, "one", "four")
    result = chat(
        "one",
        "two",
        "/undo",
        "four",
        "/goto 2",
        "three",
        "/branches",
        "/goto 7",
        "/undo x",
        "/undo 9",
    )
    lines = result.stdout
    assert f"{answers[1]}\nat turn 1: > one" in lines and f"\n{other}\nat turn 2: > two" in lines
    assert f"ms)\n{answers[2]}\n  to turn 3 (2 turns, 1 of them on the way here): > four" in lines
    assert "* to turn 4 (3 turns, 3 of them on the way here): > three" in lines
    assert "you are at turn 4\n" in lines and "the session has no turn 7" in lines
    assert "'x' is not a number" in lines and "3 turns here; 9 cannot be undone" in lines


def test_fork_save_and_load(chat, home):
    options = ("--session", "kitchen")
    result = chat(
        "one",
        "/fork cellar",
        "two",
        "/load kitchen",
        "/show",
        "/save attic",
        "/save",
        options=options,
    )
    assert "on in cellar; kitchen stays as it is\n" in result.stdout
    assert (
        "in kitchen: " in result.stdout
        and "turns:        1 here, 1 on all branches" in result.stdout
    )
    assert (
        "saved as attic; you are still in kitchen\n" in result.stdout
        and "/save NAME" in result.stdout
    )
    with Store(home) as store:
        assert {info.name: info.turns for info in store.list()} == {
            "kitchen": 1,
            "cellar": 2,
            "attic": 1,
        }
    kept = chat("one", "/save loft", "two", options=("--no-persist",))
    assert "saved as loft\n" in kept.stdout
    with Store(home) as store:
        assert [turn.text.split("\n")[0] for turn in store.turns("loft")] == ["> one", "> two"]


def test_regen_makes_another_answer_on_a_branch(chat, llm):
    (first,), _ = alone(llm, "one")
    result = chat("/regen", "one", "/regen", "/branches")
    assert result.stdout.startswith(
        f"there is no answer to make anew; say something first\n{first}\n{first}\n"
    )
    assert "  to turn 1 (" in result.stdout and "* to turn 2 (1 turn, 1 of" in result.stdout


def test_an_answer_begins_as_it_is_told_to(chat):
    result = chat("/prefill Well", "one", "/show 1", "two", "/show 2", "/prefill")
    shown = result.stdout.split("\n> ")
    assert result.stdout.startswith("the next answer begins with 'Well'\nWell")
    assert shown[1].startswith("one\n\nWell") and not shown[2].startswith("two\n\nWell")
    assert result.stdout.endswith("answers begin freely\n")


def test_a_file_goes_before_the_next_message(chat, llm, tmp_path):
    (tmp_path / "text").write_text("a text\n")
    (tmp_path / "bytes").write_bytes(b"a\0b")
    (answer,), _ = alone(llm, "a text\n\nwhat?")
    result = chat(
        *(f"/file {tmp_path / name}" for name in ("none", "bytes", "text")), "what?", "/show 1"
    )
    lines = result.stdout.splitlines()
    assert "is no file" in lines[0] and "holds zero bytes" in lines[1]
    assert re.fullmatch(r"7 bytes, \d+ tokens, go before your next message", lines[2])
    assert result.stdout.endswith(f"\n{answer}\n> a text\n> \n> what?\n\n{answer}\n")


def test_state_says_what_is_remembered(chat):
    result = chat("/state", "one", "two", "/state")
    assert "nothing has been read yet" in result.stdout
    assert re.search(
        r"bytes: the gist of \d\d tokens; the last 32 verbatim\nkept as session-", result.stdout
    )


def test_wrong_options_are_one_line(chat, folder, tmp_path, home):
    chat("one", options=("--session", "x", "--system", "Be kind."))
    for options, line in (
        (("--session", "a/b"), "'a/b' cannot name a session"),
        (("--session", "x", "--no-persist"), "--no-persist keeps none"),
        (("--session", "x", "--new"), "--new or --session"),
        (("--state", tmp_path / "none.state"), "there is no state file"),
        (("--state", "none"), "there is no session 'none'"),
    ):
        result = chat("hello", options=options)
        assert result.exit_code == 2 and line in result.stderr and not result.stdout, (
            options,
            result.output,
        )
        assert "Traceback" not in result.output
    with Store(home) as store:
        assert [info.name for info in store.list()] == ["x"]


def test_other_words_are_read_under_what_was_said(chat, llm, home):
    """/system and --system keep the conversation: it is read anew under the new text."""
    (first, _), talk = alone(llm, "one", "two")
    talk.undo()
    talk.instruct("Be kind.")
    second = "".join(talk.say("two"))
    result = chat("one", "/system Be kind.", "two", options=("--session", "x"))
    told = (
        "this system text from now on; what was said is read again under it before the next answer"
    )
    assert result.stdout == f"{first}\n{told}\n{second}\n"
    talk.instruct("Else.")
    third = "".join(talk.say("three"))
    options = ("--session", "x", "--system", "Else.")
    assert chat("three", options=options).stdout == f"{third}\n"
    with Store(home) as store, store.open("x", talk.session.fingerprint) as session:
        assert [turn.number for turn in session.turns()] == [4, 5, 6]
        session.undo()
        assert session.resume().tokens == session.turns()[1].tokens


def test_a_message_that_is_too_long(chat, llm):
    (answer,), _ = alone(llm, "short")
    result = chat("long " * 200, "short", options=("--max-message-tokens", 40))
    assert "this chat takes 40 (raise it with --max-message-tokens" in result.stdout
    assert result.stdout.endswith(f"\n{answer}\n")


def test_two_chats_on_one_conversation(chat, llm, home):
    chat("one", options=("--session", "x"))
    from griffin.conversation import fingerprint_of

    with Store(home) as store, store.open("x", fingerprint_of(llm)):
        result = chat("two", options=("--session", "x"))
        assert result.exit_code == 2 and "'x' is in use by process" in result.stderr
        assert len(result.stderr.splitlines()) == 2
        by_default = chat("two")
        assert by_default.exit_code == 0
        assert re.search(
            r"'x' is in use by process .* Began session-\w+ instead", by_default.stderr
        )


def test_a_torn_file_is_named(chat, home):
    chat("one", "two", options=("--session", "x"))
    blobs = sorted((home / "blobs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    raw = bytearray(blobs[-1].read_bytes())
    raw[-5] ^= 1
    blobs[-1].write_bytes(raw)
    result = chat("three")
    assert (
        result.exit_code == 2 and blobs[-1].name in result.stderr and "chat --new" in result.stderr
    )
    assert blobs[-1].read_bytes() == raw and chat("one", options=("--new",)).exit_code == 0


def test_another_models_conversation_is_left_alone(chat, run, folder, tmp_path):
    from tests.support.toy_folder import write_toy

    chat("one", options=("--session", "x"))
    other = write_toy(tmp_path / "other", vocab_size=520)
    result = run("chat", "--model", other, *OPTIONS, "--session", "x", stdin="two\n")
    assert result.exit_code == 2 and "belongs to another model (config: " in result.stderr
    result = run("chat", "--model", other, *OPTIONS, stdin="two\n")
    assert result.exit_code == 0 and "began session-" in result.stderr


def test_a_full_disk_is_told_and_the_talk_goes_on(chat, llm, monkeypatch, home):
    answers, talk = alone(llm, "one", "two", "three")
    chat("one", options=("--session", "x"))
    with monkeypatch.context() as patch:

        def full(*_arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", full)
        result = chat("two", "three", "/tokens", "/undo", "/state", options=("--stats",))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{answers[1]}\n{answers[2]}\n{talk.tokens:,} tokens")
    assert result.stderr.count("not kept: no room to write") == 1
    assert "kept in memory only: no room" in result.stdout and "at turn 2: > two" in result.stdout
    with Store(home) as store:
        assert len(store.turns("x")) == 1 and store.check() == ()
    assert chat("two").stdout == f"{answers[1]}\n"


def test_parse_reads_values():
    assert [parse(text) for text in ("3", "0.5", "none", "word")] == [3, 0.5, None, "word"]


def test_ctrl_c_stops_the_answer_and_not_the_program(llm, capsys):
    talk = Conversation(llm, begin(llm, None), sampling={"temperature": 0, "max_tokens": 500})
    count = 0

    def press():
        nonlocal count
        for text in talk.say("one"):
            yield text
            count += 1
            if count == 4:
                signal.raise_signal(signal.SIGINT)

    repl.answer(talk, press(), stats=False, plain=True)
    assert 4 <= count <= 6 and talk.result.generated_tokens in (4, 5)
    assert capsys.readouterr().out.endswith("\n")
    assert len(talk.session.turns()) == 1
