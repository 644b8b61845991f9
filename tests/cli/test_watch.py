"""`griffin watch`: a standing question, asked on forks, of a stream that knows nothing of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

import griffin
from griffin.cli import watch as watch_file
from griffin.cli.watch import Watch, followed

LINES = [
    f"2026-11-{n % 28 + 1:02d} worker {n % 7}: took {n * 37 % 1000} ms for /item/{n}\n"
    for n in range(100)
]
FLAGS = ("--max-tokens", 6, "--temperature", 0)
FIELDS = {"max_tokens": 6, "temperature": 0}
_MAIN = "import sys; sys.argv[0] = 'griffin'; from griffin.cli import main; main()"


@pytest.fixture(scope="module")
def llm(folder):
    return griffin.load(folder, device="cpu")


def expected(llm, lines, chat=False):
    content = f"{''.join(LINES[:lines]).strip()}\n\nSlow?"
    if chat:
        return llm.chat([{"role": "user", "content": content}], **FIELDS).text
    return llm.generate(content, **FIELDS).text


def rows(output):
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("chat", [False, True], ids=["raw", "chat"])
def test_each_answer_is_that_of_the_lines_so_far_alone(run, folder, llm, chat):
    flag = "--chat" if chat else "--raw"
    arguments = ("watch", "--model", folder, "--every", 40, "--ask", "Slow?", flag, *FLAGS)
    out = run(*arguments, "--json", stdin="".join(LINES))
    found = rows(out.stdout)
    assert [row["line"] for row in found] == [40, 80, 100]
    assert [row["answer"] for row in found] == [expected(llm, n, chat) for n in (40, 80, 100)]
    assert found[0]["question"] == "Slow?" and found[0]["cached_tokens"] < found[0]["prompt_tokens"]
    turn = "user\n" if chat else ""  # after <start_of_turn>, the one token more
    read = len(llm.tokenizer.encode(turn + "".join(LINES))) + chat
    assert out.stderr.startswith(f"100 lines, {read:,} tokens read, 3 answers in")
    plain = run(*arguments, "-", stdin="".join(LINES[:40]))
    assert plain.stdout == f"line 40: {expected(llm, 40, chat)}\n", (
        "no second answer without new lines"
    )


def test_a_file_and_a_last_line_without_an_end(run, folder, llm, tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(LINES[:50]).rstrip("\n"))
    arguments = ("watch", "--model", folder, "--every", 49, "--ask", "Slow?", *FLAGS, "--json")
    found = rows(run(*arguments, path).stdout)
    assert [(row["line"], row["answer"]) for row in found] == [
        (n, expected(llm, n)) for n in (49, 50)
    ]
    path.write_text("\n\n\n")
    result = run("watch", "--model", folder, "--every", 2, "--ask", "Slow?", path)
    assert (
        result.stdout == ""
        and result.exit_code == 0
        and result.stderr.startswith("3 lines, 0 tokens")
    )
    path.write_text("")
    result = run("watch", "--model", folder, "--ask", "Slow?", path)
    assert result.stdout == "" and result.exit_code == 0 and result.stderr.startswith("0 lines")


def test_the_stream_is_the_same_with_and_without_questions(llm):
    def ask(watch):
        watch.document.prompts(["Slow?"])

    ends = []
    for action in (ask, lambda watch: watch.document.settle()):
        document = llm.document(chat=False, hold=False)
        Watch(document, 10).run(iter([line.encode() for line in LINES]), action)
        ends.append(document.prompts(["Well?"])[0])
    one, other = ends
    assert one.pending == other.pending and one.tokens == other.tokens
    for a, b in zip(one.state.layers, other.state.layers, strict=True):
        assert all(x.equal(y) for x, y in zip(a, b, strict=True))


def test_characters_may_be_torn_between_chunks(llm):
    document = llm.document(chat=False, hold=False)
    raw = "größer als früher\n".encode()
    watch = Watch(document, 1)
    asked = []
    watch.run(
        iter([raw[:3], b"", raw[3:], b"\xff\n", b"end \xc3"]), lambda w: asked.append(w.lines)
    )
    assert asked == [1, 2, 3] and watch.replaced == 2
    text = "größer als früher\n\ufffd\nend \ufffd\n\nWhy?"
    assert document.prompts(["Why?"])[0].tokens == len(llm.tokenizer.encode(text))


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_stream(llm):
    document = llm.document(chat=False, hold=False)
    watch = Watch(document, 50)
    held: list[int] = []
    watch.run(
        (LINES[n % 100].encode() for n in range(1500)), lambda w: held.append(len(document._held))
    )
    assert len(held) == 30 and document.hard_cuts == 0
    assert max(held) < 20_000 and watch._batch == ""


def test_a_file_is_followed_through_growth_truncation_and_rotation(tmp_path, monkeypatch):
    monkeypatch.setattr(watch_file, "_PAUSE", 0.001)
    path = tmp_path / "log"
    path.write_text("one\ntwo")
    chunks = followed(path)

    def more():
        return next(chunk for chunk in chunks if chunk)

    assert [more(), more()] == [b"one\n", b"two"]
    assert next(chunks) == b"", "nothing new is told, so that what is there can be read"
    with path.open("a") as stream:
        stream.write(" and a half\nthree\n")
    assert [more(), more()] == [b" and a half\n", b"three\n"]
    path.write_text("anew\n")
    assert more() == b"anew\n"
    with path.open("a") as stream:
        stream.write("last\n")
        next(chunks)
    path.rename(tmp_path / "log.1")
    with (tmp_path / "log.1").open("a") as stream:
        stream.write("late\n")
    path.write_text("next\n")
    found = [more() for _ in range(2)]
    if found == [b"last\n", b"late\n"]:
        found = [*found[1:], more()]
    assert found == [b"late\n", b"next\n"]
    path.unlink()
    assert [next(chunks) for _ in range(3)] == [b""] * 3
    path.write_text("back\n")
    assert more() == b"back\n"


@pytest.mark.thorough
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_a_followed_file_with_statistics(folder, llm, tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(LINES[:25]))
    command = [
        sys.executable,
        "-c",
        _MAIN,
        "watch",
        "--model",
        str(folder),
        "--threads",
        "1",
        "--follow",
    ]
    command += [
        "--every",
        "20",
        "--ask",
        "Slow?",
        "--max-tokens",
        "6",
        "--temperature",
        "0",
        "--json",
        str(path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    killer = threading.Timer(40, process.kill)
    killer.start()
    try:
        assert process.stdout is not None and process.stderr is not None
        first = json.loads(process.stdout.readline())
        with path.open("a") as stream:
            stream.write("".join(LINES[25:40]))
        second = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=60)
    finally:
        killer.cancel()
        process.kill()
    assert [first["line"], second["line"]] == [20, 40]
    assert [first["answer"], second["answer"]] == [expected(llm, 20), expected(llm, 40)]
    assert process.returncode == 130 and rest == b"" and b"Traceback" not in stderr
    assert stderr.decode().splitlines()[-1].startswith("40 lines, ") and b"2 answers in" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ask", "x", "--every", 0), "--every"),
        (("--ask", " "), "the question is empty"),
        ((), "--ask"),
        (("--ask", "x", "/no/such/file"), "/no/such/file"),
        (("--ask", "x", "--follow"), "--follow needs a FILE"),
        (("--ask", "x", "--top-p", 2), "--top-p must be a number"),
    ],
)
def test_misuse(run, folder, arguments, message):
    result = run("watch", "--model", folder, *arguments, stdin="a line\n")
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""


def test_a_binary_stream_is_refused(run, folder, tmp_path):
    result = run("watch", "--model", folder, "--ask", "x", stdin=b"\x7fELF\0\0\n")
    assert result.exit_code == 2 and "standard input is no text: byte 4 is 0" in result.stderr
    path = tmp_path / "binary"
    path.write_bytes(b"\0")
    result = run("watch", "--model", folder, "--ask", "x", path, "--follow")
    assert result.exit_code == 2 and "is no text" in result.stderr
