"""Which tokens of a conversation are learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import griffin
from griffin.text import Chat, TemplateError, Tokenizer, lesson

NANO = Path(griffin.__file__).parent / "data" / "nano"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " One? "},
    {"role": "assistant", "content": " 1\n  it is "},
    {"role": "user", "content": "Two, <end_of_turn>?"},
    {"role": "assistant", "content": "2<end_of_turn>"},
    {"role": "user", "content": "Three?"},
]
CHATML = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)


def _chat(folder: Path | None = None, template: str = "") -> Chat:
    if folder is None:
        return Chat(Tokenizer.open(NANO))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(NANO / name, folder / name)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return Chat(Tokenizer.open(folder))


def _told(chat: Chat, **how: object) -> list[tuple[str, bool]]:
    parts = lesson(chat, TALK, **how)  # pyright: ignore[reportArgumentType]
    return [(chat.tokenizer.decode(ids, skip_control=False), learned) for ids, learned in parts]


def test_answers_and_their_ends_are_learned() -> None:
    chat = _chat()
    assert _told(chat) == [
        ("<bos>", False),
        (
            "<start_of_turn>user\nBe brief.\n\nOne?<end_of_turn>\n<start_of_turn>model\n",
            False,
        ),
        ("1\n  it is<end_of_turn>", True),
        (
            "\n<start_of_turn>user\nTwo, <end_of_turn>?<end_of_turn>\n<start_of_turn>model\n",
            False,
        ),
        ("2<end_of_turn><end_of_turn>", True),
    ]
    parts = lesson(chat, TALK)
    ids = [id for part, _ in parts for id in part]
    assert ids == chat.ids(TALK[:5], add_generation_prompt=False)[: len(ids)]
    # what a person types is text: one end a turn is a control token
    assert ids.count(chat.tokenizer.end_of_turn_id) == 4


def test_answers_are_read_as_they_are_written() -> None:
    """Prompt and answer have the ids that generation has, whatever could cross the border."""
    chat = _chat()
    for place in (2, 4):
        before = chat.ids(TALK[:place])
        after = before + chat.reply_ids(TALK[place]["content"])
        ids = [id for part, _ in lesson(chat, TALK[: place + 1]) for id in part]
        assert ids == after


def test_first_and_cut() -> None:
    told = _told(_chat(), first=3, cut=True)
    assert [learned for _, learned in told] == [False, False, False, False, True]
    assert told[-1] == ("2<end_of_turn>", True)
    greeting = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Why?"}]
    assert [learned for _, learned in lesson(_chat(), greeting)] == [False, False, True]
    assert lesson(_chat(), greeting[1:]) == [([2], False)]


def test_a_template_of_another_kind(tmp_path: Path) -> None:
    chat = _chat(tmp_path, CHATML)
    told = _told(chat)
    assert not chat.native
    assert told[1][0].startswith(
        "<start_of_turn>system\nBe brief.<end_of_turn>\n<start_of_turn>user"
    )
    assert [text for text, learned in told if learned] == [
        " 1\n  it is <end_of_turn>",
        "2<end_of_turn><end_of_turn>",
    ]
    assert "".join(text for text, _ in told) + "\n" == "<bos>" + "".join(
        chat.segments([(m["role"], m["content"]) for m in TALK[:5]], False)
    )


def test_a_template_that_rewrites_answers_is_refused(tmp_path: Path) -> None:
    chat = _chat(tmp_path, CHATML.replace("{{ m.content }}", "{{ m.content | replace('it', '') }}"))
    with pytest.raises(TemplateError, match="rewrites answers"):
        lesson(chat, TALK)


def test_a_template_that_ends_answers_in_text(tmp_path: Path) -> None:
    chat = _chat(tmp_path, CHATML.replace("<end_of_turn>\n", "\n###\n"))
    assert [text for text, learned in _told(chat) if learned] == [" 1\n  it is ", "2<end_of_turn>"]
