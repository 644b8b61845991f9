import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from griffin.text import Chat, TemplateError, Tokenizer
from tests.support.hard_texts import plain_texts, texts

Messages = list[dict[str, Any]]


@pytest.fixture(scope="session")
def chat(tokenizer: Tokenizer) -> Chat:
    return Chat(tokenizer)


@pytest.fixture(scope="session")
def theirs(files: Any) -> Any:
    return AutoTokenizer.from_pretrained(files.json)


def conversation(contents: list[str]) -> Messages:
    return [
        {"role": ("user", "assistant")[n % 2], "content": content}
        for n, content in enumerate(contents)
    ]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_conversation_in_full(tokenizer: Tokenizer, chat: Chat) -> None:
    ids = chat.ids(
        [{"role": "system", "content": "Be brief. "}, *conversation(["  Hi ", "Ho", "Bye"])]
    )
    assert (
        tokenizer.decode(ids, skip_control=False) == "<bos><start_of_turn>user\nBe"
        " brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHo<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )
    assert chat.native and chat.stop_ids == {1, 6}


@given(contents=st.lists(plain_texts, min_size=1, max_size=4))
def test_ids_equal_those_of_transformers(chat: Chat, theirs: Any, contents: list[str]) -> None:
    messages = conversation(contents)
    prompt = len(messages) % 2 == 1
    expected = theirs.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=prompt, return_dict=False
    )
    assert chat.ids(messages, add_generation_prompt=prompt) == expected


@pytest.mark.sweep
@given(contents=st.lists(texts, min_size=1, max_size=3))
@pytest.mark.parametrize("name", ["tokenizer", "kaggle", "chatml"])
def test_nothing_typed_becomes_control(
    request: pytest.FixtureRequest, name: str, contents: list[str]
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    chat = Chat(tokenizer)
    messages = conversation(contents)
    ids = chat.ids(messages, add_generation_prompt=False)
    control = [id for id in ids if id in tokenizer.control_ids]
    turn = [600, 601] if name == "chatml" else [5, 6]
    assert control == [2, *turn * len(messages)]
    shown = tokenizer.decode(ids)
    assert all(content.strip().replace("▁", " ") in shown for content in contents)


@given(contents=st.lists(texts, min_size=3, max_size=3), closed=st.booleans())
@pytest.mark.parametrize("name", ["tokenizer", "chatml"])
def test_turns_in_a_row_are_the_whole_conversation(
    request: pytest.FixtureRequest, name: str, contents: list[str], closed: bool
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    chat = Chat(tokenizer)
    messages = conversation(contents)
    reply = tokenizer.encode(contents[1].strip(), bos=False)
    if closed:
        reply.append(601 if name == "chatml" else 6)
    opening = chat.turn_ids(messages[0], first=True)
    assert opening == chat.ids(messages[:1])
    assert [*opening, *reply, *chat.turn_ids(messages[2], closed=closed)] == chat.ids(messages)


@given(contents=st.lists(texts, min_size=2, max_size=4).filter(lambda c: not len(c) % 2))
@pytest.mark.parametrize("name", ["tokenizer", "kaggle", "chatml"])
def test_an_answer_that_is_begun_goes_on(
    request: pytest.FixtureRequest, name: str, contents: list[str]
) -> None:
    """Its text is as it was given, with the ids that it has by itself: a reply's."""
    tokenizer: Tokenizer = request.getfixturevalue(name)
    chat = Chat(tokenizer)
    messages, begun = conversation(contents), tokenizer.encode(contents[-1], bos=False)
    ids = chat.ids(messages)
    assert ids == [*chat.ids(messages[:-1]), *begun]
    assert chat.begun(messages) == begun and chat.begun(messages[:-1]) == []
    assert [id for part in chat.exchanges(messages) for id in part] == ids
    shown = tokenizer.decode(ids)
    assert shown.endswith(contents[-1].replace("▁", " ")) or tokenizer.unk_id in begun


@given(contents=st.lists(plain_texts, min_size=2, max_size=2))
def test_a_begun_answer_has_the_ids_of_the_text_put_together(
    tokenizer: Tokenizer, chat: Chat, contents: list[str]
) -> None:
    """Where it begins with no white space, which would join the line break before it."""
    messages = conversation([contents[0], contents[1].strip()])
    whole = chat.ids(messages, add_generation_prompt=False)
    end = [tokenizer.end_of_turn_id, *tokenizer.encode("\n", bos=False)]
    assert [*chat.ids(messages), *end] == whole


def test_contents_in_parts(chat: Chat) -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert chat.ids([user(parts)]) == chat.ids([user("a b")])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "needs a user message"),
        (user("x"), "a list of messages"),
        (["x"], r"messages\[0\] must be an object"),
        ([{"role": "tool", "content": "x"}], r"messages\[0\] has role 'tool'; allowed are system"),
        ([{"role": [], "content": "x"}], r"has role \[\]"),
        ([*conversation(["a", "b", "c"])[1:], user("d")], "messages.2. has role user, but it is"),
        ([user("a"), user("b")], "messages.1. has role user, but it is the assistant's turn"),
        ([user("a"), {"role": "system", "content": "x"}], r"messages\[1\] is a system message"),
        ([user(None)], "content of type NoneType"),
        ([user([{"type": "image_url"}])], "part 0 is of type 'image_url'"),
        ([user(["x"])], "part 0 is of type 'str'"),
        ([{**user("x"), "tool_calls": []}], "has tool_calls"),
    ],
)
def test_refused_conversations_say_why(chat: Chat, messages: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chat.ids(messages)


def test_only_a_user_message_continues(chat: Chat) -> None:
    with pytest.raises(ValueError, match="user's turn"):
        chat.turn_ids({"role": "assistant", "content": "x"})
    with pytest.raises(ValueError, match="needs a user message after the system message"):
        chat.turn_ids({"role": "system", "content": "x"})


def test_a_conversation_begins_with_the_user_whoever_speaks_first(chat: Chat) -> None:
    system, greeting = {"role": "system", "content": "S"}, {"role": "assistant", "content": "A"}
    assert chat.ids([system]) == chat.ids([user("S")])
    assert chat.ids([greeting, user("U")]) == chat.ids([user(""), greeting, user("U")])
    assert chat.ids([system, greeting, user("U")]) == chat.ids([user("S"), greeting, user("U")])
    parts = chat.exchanges([greeting, user("U")])
    assert [id for part in parts for id in part] == chat.ids([greeting, user("U")])
    assert chat.ids([greeting]) == chat.ids([user(""), greeting])
    assert chat.ids([system, greeting]) == chat.ids([user("S"), greeting])


def with_template(tokenizer: Tokenizer, source: str | None) -> Tokenizer:
    from griffin.text.special_tokens import SpecialTokens

    special = SpecialTokens(names={}, extra=frozenset(), chat_template=source)
    return Tokenizer(
        Path("here"), tokenizer.vocabulary, lambda text: tokenizer.encode(text, bos=False), special
    )


def test_which_template_is_used(tokenizer: Tokenizer, chatml: Tokenizer) -> None:
    gemma = tokenizer.chat_template
    assert gemma is not None
    assert Chat(with_template(tokenizer, None)).native
    assert Chat(with_template(tokenizer, gemma + "{# another spelling #}")).native
    untrimmed = Chat(with_template(tokenizer, gemma.replace(" | trim", "")))
    assert not untrimmed.native
    assert "user\n a <end" in tokenizer.decode(untrimmed.ids([user(" a ")]), skip_control=False)
    # It has no place for a system message either, so that is folded.
    folded = untrimmed.ids([{"role": "system", "content": "s"}, user("a")])
    assert tokenizer.decode(folded).startswith("user\ns\n\na")
    own = Chat(chatml)
    assert not own.native and own.stop_ids == {1, 6, 601}
    assert (
        chatml.decode(own.ids([{"role": "system", "content": " s"}, user("a")]), skip_control=False)
        == "<bos><|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_tokenizer_without_turns_is_no_chat_model(
    tokenizer: Tokenizer, chatml: Tokenizer
) -> None:
    bare = with_template(tokenizer, None)
    bare.end_of_turn_id = None
    with pytest.raises(ValueError, match="give it plain text"):
        Chat(bare)
    with pytest.raises(TemplateError, match="does not compile"):
        Chat(with_template(chatml, "{% if %}"))


def test_templates_know_the_special_tokens_that_the_files_name(files: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((files.chatml / "tokenizer.json").read_bytes())
    config = {"mask_token": {"content": "<mask>"}, "sep_token": "<|im_end|>", "cls_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    source = "{{ mask_token ~ sep_token ~ unk_token ~ eos_token }}{{ cls_token is defined }}"
    (tmp_path / "chat_template.jinja").write_text(source)
    chat = Chat(Tokenizer.open(tmp_path))
    assert chat.tokenizer.decode(chat.ids([user("a")]), skip_control=False) == (
        "<bos><mask><|im_end|><unk><eos>False"
    )
