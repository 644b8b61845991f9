"""`griffin ask`: one reading, many questions, each as if it were alone and the text whole."""

from __future__ import annotations

import io
import json

import pytest

import griffin
from griffin.cli.ask import Printer
from griffin.cli.shared.reading import TextOnly
from griffin.text.pieces import TextSource

LINES = "".join(
    f"2026-11-{n % 28 + 1:02d} worker {n % 7}: took {n * 37 % 1000} ms for /item/{n}\n"
    for n in range(400)
)
QUESTIONS = ["Which worker is slow?", "How many items?", "Why? "]
FLAGS = ("--max-tokens", 10, "--seed", 4, "--top-k", 50)
FIELDS = {"max_tokens": 10, "seed": 4, "top_k": 50}


@pytest.fixture(scope="module")
def llm(folder):
    return griffin.load(folder, device="cpu")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "worker.log"
    path.write_text("\n\n" + LINES)
    return path


def whole(llm, text, question, chat):
    """The answer to a text and a question that are given to the model in one piece."""
    if chat:
        content = f"{text.strip()}\n\n{question.strip()}"
        return llm.chat([{"role": "user", "content": content}], **FIELDS)
    return llm.generate(f"{text.strip()}\n\n{question}", **FIELDS)


@pytest.mark.thorough
@pytest.mark.parametrize("chat", [False, True], ids=["raw", "chat"])
def test_answers_are_those_of_the_whole_text_asked_alone(run, folder, llm, path, chat):
    asked = [part for question in QUESTIONS for part in ("-q", question)]
    flag = "--chat" if chat else "--raw"
    result = run("ask", "--model", folder, "--file", path, flag, *asked, *FLAGS, "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["question"] for row in rows] == QUESTIONS
    for row in rows:
        alone = whole(llm, LINES, row["question"], chat)
        assert row["answer"] == alone.text and row["finish_reason"] == alone.finish_reason
        assert row["prompt_tokens"] == alone.prompt_tokens and row["seed"] == 4
        assert row["generated_tokens"] == alone.generated_tokens
        assert 0 < row["prompt_tokens"] - row["cached_tokens"] < 60, (
            "only the question is read for itself"
        )
        assert 0 < row["first_seconds"] <= row["seconds"]
    only = run("ask", "--model", folder, "--file", path, flag, "-q", QUESTIONS[1], *FLAGS, "--json")
    timeless = {"seconds", "first_seconds"}
    (row,) = [json.loads(line) for line in only.stdout.splitlines()]
    assert {k: v for k, v in row.items() if k not in timeless} == {
        k: v for k, v in rows[1].items() if k not in timeless
    }


def test_text_for_people_files_of_questions_and_standard_input(run, folder, llm, path, tmp_path):
    more = tmp_path / "questions.txt"
    more.write_text(f"\n  {QUESTIONS[1]}\n\n")
    expected = "\n".join(f"{q}\n{whole(llm, LINES, q, False).text}\n" for q in QUESTIONS[:2])
    arguments = (
        "ask",
        "--model",
        folder,
        *FLAGS,
        "-q",
        QUESTIONS[0],
        "--questions",
        more,
        "--stats",
    )
    result = run(*arguments, "--file", path)
    assert result.stdout == expected
    assert "tokens read once" in result.stderr and "20 tokens of 2 answers" in result.stderr
    assert run(*arguments, "--file", "-", stdin=LINES).stdout == expected


def test_answers_are_printed_in_order_whoever_ends_first(llm, capsys):
    result = llm.generate("x", max_tokens=2, seed=1)
    printer = Printer(["A?", "B?", "C?"], 5, "m", as_json=False)
    printer.take(2, "c1 ", None)
    printer.take(1, "b1", result)
    printer.take(0, "a1 ", None)
    assert capsys.readouterr().out == "A?\na1 "
    printer.take(0, "a2", result)
    assert capsys.readouterr().out == "a2\n\nB?\nb1\n\nC?\nc1 "
    printer.take(2, "c2", result)
    assert capsys.readouterr().out == "c2\n" and printer.generated == 6


def test_bytes_that_are_no_text(run, folder, tmp_path):
    path = tmp_path / "file"
    for content, message in (
        (b"GIF89a\0\0\0", f"{path} is no text: byte 6 is 0"),
        (bytes(range(128, 256)) * 4, "is no UTF-8 text"),
        ("text".encode("utf-16"), "convert it to UTF-8"),
        (b"", "there is no text to ask about"),
        (b" \n\n", "there is no text to ask about"),
    ):
        path.write_bytes(content)
        result = run("ask", "--model", folder, "--file", path, "-q", "What?")
        assert result.exit_code == 2 and message in result.stderr and result.stdout == ""
        assert result.stderr.strip().count("\n") == 1  # one line and a hint
    path.write_bytes(b"caf\xe9 au lait\n" * 3)
    result = run("ask", "--model", folder, "--file", path, "-q", "What?", *FLAGS)
    assert result.exit_code == 0 and "notice: 3 places were not UTF-8" in result.stderr
    late = io.BytesIO(b"x" * (1 << 16) + b"\0" * 9)
    assert len("".join(TextSource(TextOnly(late, "late")))) == (1 << 16) + 9, (
        "only the beginning decides"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--file", "/no/such/file", "-q", "x"), "/no/such/file"),
        (("--file", "{path}"), "give a question with -q"),
        (("-q", "x"), "--file"),
        (("--file", "{path}", "-q", "x", "-q", " "), "question 2 is empty"),
        (("--file", "{path}", "-q", "x", "--top-p", 2), "--top-p must be a number"),
        (("--file", "{path}", "-q", "x", "--logit-bias", "512=1"), "--logit-bias names token 512"),
        (("--file", "{path}", "--questions", "/no/such/file"), "/no/such/file"),
    ],
)
def test_misuse(run, folder, path, arguments, message):
    arguments = [str(a).format(path=path) for a in arguments]
    result = run("ask", "--model", folder, *arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""


def test_a_list_of_questions_that_is_no_text(run, folder, path, tmp_path):
    bad = tmp_path / "questions"
    bad.write_bytes(b"\xff\xfe\0")
    result = run("ask", "--model", folder, "--file", path, "--questions", bad)
    assert result.exit_code == 2 and "is no UTF-8 text (byte 0)" in result.stderr
