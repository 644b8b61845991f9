"""A text is read once and asked many times; the answers are those of the whole text asked alone."""

from __future__ import annotations

import pytest

import griffin
from griffin import Document, Grammar
from griffin import document as document_file
from griffin.text.pieces import Cutter
from tests.support.toy_folder import write_toy

LINES = "".join(
    f"2026-11-{n % 28 + 1:02d} worker {n % 7}: took {n * 37 % 1000} ms for /item/{n}\n"
    for n in range(400)
)
QUESTIONS = ["Which worker is slow?", "How many items?", "Why? "]
FIELDS = {"max_tokens": 10, "seed": 4, "top_k": 50}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return griffin.load(write_toy(tmp_path_factory.mktemp("document") / "toy"), device="cpu")


def plain(result):
    return result.text, result.ids, result.logprobs, result.finish_reason, result.prompt_tokens


@pytest.mark.thorough
@pytest.mark.parametrize("chat", [False, True], ids=["raw", "chat"])
def test_however_it_is_asked_the_answer_is_that_of_the_whole_text_alone(llm, chat):
    document = llm.document(LINES, chat=chat)
    together = document.ask_all(QUESTIONS, **FIELDS)
    pieces = list(document.stream_all(QUESTIONS, **FIELDS))
    for number, question in enumerate(QUESTIONS):
        if chat:
            content = f"{LINES.strip()}\n\n{question.strip()}"
            whole = llm.chat([{"role": "user", "content": content}], **FIELDS)
        else:
            whole = llm.generate(f"{LINES.strip()}\n\n{question}", **FIELDS)
        stream = document.stream(question, **FIELDS)
        assert "".join(piece.text for piece in stream) == whole.text
        (last,) = [result for which, _, result in pieces if which == number and result is not None]
        own = [piece.text for which, piece, _ in pieces if which == number]
        assert "".join(own) == whole.text
        for result in (document.ask(question, **FIELDS), together[number], last, stream.result):
            assert plain(result) == plain(whole)
            assert 0 < result.prompt_tokens - document.shared < 60, "only the question is read"


@pytest.mark.thorough
def test_a_string_blocks_and_an_open_file_are_the_same_text(llm, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text(LINES, encoding="utf-8")
    blocks = llm.document(LINES[at : at + 77] for at in range(0, len(LINES), 77))
    with path.open(encoding="utf-8") as lines:
        documents = [llm.document(LINES), blocks, llm.document(lines)]
    later = llm.document()
    assert later.empty and later.count() == 0
    later.read(LINES[:5000])
    later.ask("Well?", max_tokens=1)
    later.read(LINES[5000:])
    answers = [plain(document.ask("Why?", **FIELDS)) for document in (*documents, later)]
    assert answers == answers[:1] * 4


def test_an_answer_of_a_given_form(llm):
    document = llm.document(LINES)
    grammar = Grammar.choice("yes", "no")
    assert document.ask("Slow?", grammar=grammar).text in ("yes", "no")
    assert {result.text for result in document.ask_all(QUESTIONS, grammar=grammar)} <= {"yes", "no"}
    assert "".join(p.text for p in document.stream("Slow?", grammar=grammar)) in ("yes", "no")


def test_what_cannot_be_asked(llm):
    for text in ("", " \n\n", ()):
        with pytest.raises(ValueError, match="there is no text to ask about"):
            llm.document(text).ask("What?")
    document = llm.document(LINES)
    with pytest.raises(ValueError, match="question 2 is empty"):
        document.ask_all(["What?", " "])
    with pytest.raises(ValueError, match="`ask` takes a single one"):
        document.ask_all("What?")
    with pytest.raises(ValueError, match="top_p must be a number"):
        document.ask("What?", top_p=2)


@pytest.mark.parametrize(
    "text", ["x", "one line", "ä" * 300, LINES[:5000] + "\n" * 9000, "a" * 20_000]
)
def test_texts_of_every_kind_have_the_ids_of_the_whole(llm, text):
    seen: list[int] = []
    document = llm.document([text[:70], text[70:]], chat=False, progress=seen.append)
    prompts = document.prompts(["What?", "When?"])
    shared = document.shared
    assert seen == sorted(seen) and seen[-1] == shared
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


@pytest.mark.thorough
def test_what_is_held_does_not_grow_with_the_text(llm):
    document = llm.document((LINES for _ in range(5)), chat=True)
    assert len(document._held) < 10_000 and document.hard_cuts == 0
    first = document.tokens
    document.prompts(["What?"])
    document.read([LINES])
    assert document.tokens > first


def test_questions_leave_the_document_as_it_was(llm):
    asked, quiet = (llm.document(LINES[:9000], chat=False) for _ in range(2))
    for document in (asked, quiet):
        document.settle()
    asked.prompts(["What?"])
    asked.ask("What?", **FIELDS)
    for document in (asked, quiet):
        document.read([LINES[9000:]])
    one, other = (document.prompts(["Well?"])[0] for document in (asked, quiet))
    assert one.pending == other.pending
    for a, b in zip(one.state.layers, other.state.layers, strict=True):
        assert all(map(griffin_equal, a, b))


def griffin_equal(a, b):
    return a.dtype == b.dtype and a.equal(b)


def test_a_stop_string_ends_one_answer_and_not_the_others(llm):
    document = llm.document(LINES, chat=False)
    free = document.ask_all(QUESTIONS, **FIELDS)
    stop = next(c for c in free[0].text if c not in free[1].text)
    cut = document.ask_all(QUESTIONS, **FIELDS, stop=(stop,))
    assert cut[0].text == free[0].text.partition(stop)[0] and cut[0].finish_reason == "stop"
    assert cut[1].text == free[1].text and cut[1].ids == free[1].ids


def test_chat_is_for_chat_models(llm, monkeypatch):
    assert not llm.document().chat and llm.document(chat=True).chat
    monkeypatch.setattr(llm, "name", "kaggle/2b-it")
    assert llm.document().chat and not llm.document(chat=False).chat
    monkeypatch.setattr(llm, "name", "2b")
    monkeypatch.setattr(llm.tokenizer, "chat_template", "{{ messages }}")
    assert llm.document().chat


def test_a_template_of_its_own_holds_the_text(llm, monkeypatch):
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}[/]{% endfor %}->"
    )
    monkeypatch.setattr(llm.tokenizer, "chat_template", template)
    monkeypatch.delattr(llm, "chat_format", raising=False)
    monkeypatch.setitem(vars(llm), "chat_format", griffin.text.Chat(llm.tokenizer))
    assert not llm.chat_format.native
    document = llm.document([LINES[:3000], LINES[3000:6000]], chat=True)
    (prompt,) = document.prompts(["What?"])
    content = f"{LINES[:6000].strip()}\n\nWhat?"
    assert prompt.tokens == len(llm.chat_format.ids([{"role": "user", "content": content}]))
    assert document.shared > 0.9 * prompt.tokens
    with pytest.raises(ValueError, match="no place for a text without end"):
        llm.document(chat=True, hold=False)


WRONG = {
    "no text": (lambda llm: llm.document(3), "a document is a string, or blocks of .*, not 3"),
    "bytes": (lambda llm: llm.document(b"abc"), "not b'abc'; decode them first"),
    "blocks": (lambda llm: llm.document(["a ", 2]), "or a list of strings, not 2"),
    "no question": (lambda llm: llm.document("x").ask(None), "question 1 must be .*, not None"),
    "a list": (lambda llm: llm.document("x").ask(["y"]), r"question 1 must be .*, not \['y'\]"),
    "no list": (lambda llm: llm.document("x").ask_all(None), "a list of strings, not None"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_text_is_named(llm, case):
    call, said = WRONG[case]
    with pytest.raises(ValueError, match=said):
        call(llm)
