"""`griffin ask`: one reading, many questions, each as if it were alone and the text whole."""

from __future__ import annotations

import io
import json

import pytest

import griffin
from griffin.cli import document as document_file
from griffin.cli.ask import Printer
from griffin.cli.document import Document, TextOnly, wants_turns
from griffin.text.pieces import Cutter, TextSource

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


@pytest.mark.parametrize(
    "text", ["x", "one line", "ä" * 300, LINES[:5000] + "\n" * 9000, "a" * 20_000]
)
def test_texts_of_every_kind_have_the_ids_of_the_whole(llm, text):
    document = Document(llm, chat=False)
    seen: list[int] = []
    document.read([text[:70], text[70:]], seen.append)
    prompts, shared = document.prompts(["What?", "When?"], seen.append)
    assert seen == sorted(seen)
    assert document.hard_cuts == 0
    for question, prompt in zip(("What?", "When?"), prompts, strict=True):
        assert prompt.tokens == len(llm.tokenizer.encode(f"{text.strip()}\n\n{question}"))
        assert prompt.tokens - len(prompt.pending) == shared == int(prompt.state.pos[0])


def test_a_text_without_a_safe_place_is_cut_at_a_line_all_the_same(llm, monkeypatch):
    monkeypatch.setattr(document_file, "_MOST", 1 << 13)
    monkeypatch.setattr(Cutter, "cut", lambda self, text: None)
    document = Document(llm, chat=False)
    document.read(LINES[at : at + 1000] for at in range(0, 19_000, 1000))
    assert document.hard_cuts == 2 and document.tokens > 1000
    assert document._held.startswith("2026-") and len(document._held) < 1 << 13


def test_what_is_held_does_not_grow_with_the_text(llm):
    document = Document(llm, chat=True)
    document.read(LINES for _ in range(5))
    assert len(document._held) < 10_000 and document.hard_cuts == 0
    first = document.tokens
    document.prompts(["What?"])
    document.read([LINES])
    assert document.tokens > first


def test_questions_leave_the_document_as_it_was(llm):
    asked, quiet = (Document(llm, chat=False) for _ in range(2))
    for document in (asked, quiet):
        document.read([LINES[:9000]])
        document.settle()
    asked.prompts(["What?"])
    prompts, _ = asked.prompts(["What?"])
    list(llm.stream_all(prompts, **asked.sampling(FIELDS)))
    for document in (asked, quiet):
        document.read([LINES[9000:]])
    one, other = (document.prompts(["Well?"])[0][0] for document in (asked, quiet))
    assert one.pending == other.pending
    for a, b in zip(one.state.layers, other.state.layers, strict=True):
        assert all(map(griffin_equal, a, b))


def griffin_equal(a, b):
    return a.dtype == b.dtype and a.equal(b)


def test_a_stop_string_ends_one_answer_and_not_the_others(llm):
    document = Document(llm, chat=False)
    document.read([LINES])
    prompts, _ = document.prompts(QUESTIONS)
    free = ended(llm.stream_all(prompts, **document.sampling(FIELDS)))
    stop = next(c for c in free[0].text if c not in free[1].text)
    cut = ended(llm.stream_all(prompts, **document.sampling({**FIELDS, "stop": (stop,)})))
    assert cut[0].text == free[0].text.partition(stop)[0] and cut[0].finish_reason == "stop"
    assert cut[1].text == free[1].text and cut[1].ids == free[1].ids


def ended(events):
    results = {which: result for which, _, result in events if result is not None}
    return [results[n] for n in range(len(results))]


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


def test_chat_is_for_chat_models(llm, monkeypatch):
    assert not wants_turns(llm, None) and wants_turns(llm, True)
    monkeypatch.setattr(llm, "name", "kaggle/2b-it")
    assert wants_turns(llm, None) and not wants_turns(llm, False)
    monkeypatch.setattr(llm, "name", "2b")
    monkeypatch.setattr(llm.tokenizer, "chat_template", "{{ messages }}")
    assert wants_turns(llm, None)


def test_a_template_of_its_own_holds_the_text(llm, monkeypatch):
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}[/]{% endfor %}->"
    )
    monkeypatch.setattr(llm.tokenizer, "chat_template", template)
    monkeypatch.delattr(llm, "chat_format", raising=False)
    monkeypatch.setitem(vars(llm), "chat_format", griffin.text.Chat(llm.tokenizer))
    assert not llm.chat_format.native
    document = Document(llm, chat=True)
    document.read([LINES[:3000], LINES[3000:6000]])
    (prompt,), shared = document.prompts(["What?"])
    content = f"{LINES[:6000].strip()}\n\nWhat?"
    assert prompt.tokens == len(llm.chat_format.ids([{"role": "user", "content": content}]))
    assert shared > 0.9 * prompt.tokens
    with pytest.raises(ValueError, match="no place for a text without end"):
        Document(llm, chat=True, whole=False)


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
        (("--file", "{path}", "-q", "x", "--top-p", 2), "top_p must be a number"),
        (("--file", "{path}", "-q", "x", "--logit-bias", "512=1"), "logit_bias names token 512"),
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
