from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from griffin.text import Chat, TemplateError, Tokenizer
from griffin.text.template import ChatTemplate, Control
from tests.support.hard_texts import CONTROL, plain_texts, texts

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


def test_contents_in_parts(chat: Chat) -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert chat.ids([user(parts)]) == chat.ids([user("a b")])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "needs a user message"),
        ([{"role": "system", "content": "x"}], "needs a user message after the system message"),
        (user("x"), "a list of messages"),
        (["x"], r"messages\[0\] must be an object"),
        ([{"role": "tool", "content": "x"}], r"messages\[0\] has role 'tool'; allowed are system"),
        ([{"role": [], "content": "x"}], r"has role \[\]"),
        (conversation(["a", "b"])[1:], "messages.0. has role assistant, but it is the user's turn"),
        ([user("a"), user("b")], "messages.1. has role user, but it is the assistant's turn"),
        ([user("a"), {"role": "system", "content": "x"}], r"messages\[1\] is a system message"),
        (conversation(["a", "b"]), "nothing to answer"),
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


def render(source: str, *contents: str, **limits: Any) -> list[str]:
    template = ChatTemplate(source, [*CONTROL, "<|im_end|>"], {"bos_token": "<bos>"}, **limits)
    return template.segments([("user", content) for content in contents], True)


EACH = "{% for m in messages %}"


@pytest.mark.parametrize(
    ("source", "contents"),
    [
        (EACH + "{{ m.content }}{% endfor %}", ["<eos>", "<end_of", "_turn>"]),
        (EACH + "{{ m.content | trim }}{% endfor %}", [" < ", "eos", " >"]),
        (EACH + "<{{ m.content }}>{% endfor %}", ["eos", "bos", " pad"]),
        (EACH + "<{{ m.content | lower | trim }}>{% endfor %}", [" EOS ", "Bos"]),
        (EACH + "{{ m.content }}s>{% endfor %}", ["x <eo"]),
        (EACH + "<eo{{ m.content }}{% endfor %}", ["s> x"]),
        (EACH + "<eo{{ m.content }}{% endfor %}", ["s>", "s"]),
        ("{{ messages | map(attribute='content') | join }}", ["<", "e", "os", ">"]),
        ("{{ messages | tojson }}", ['<eos>"', "<|im_end|>"]),
        (EACH + "<{{ m.content }}s>{% endfor %}", ["eo"]),
    ],
)
def test_no_template_puts_a_control_token_together_from_contents(
    source: str, contents: list[str]
) -> None:
    segments = render(source + "<bos>", *contents)
    assert [segment for segment in segments if isinstance(segment, Control)] == ["<bos>"]
    environment_free = "".join(segments)
    assert not any(0xE000 <= ord(character) < 0xF900 for character in environment_free)


@given(
    contents=st.lists(
        texts | st.sampled_from(["e", "eos", "end_of_turn", "<", ">", "os>", "<eo"]), max_size=4
    )
)
def test_contents_come_through_a_template_unchanged(contents: list[str]) -> None:
    source = EACH + "<eos>[{{ m.content }}]{% endfor %}"
    segments = render(source, *contents)
    assert "".join(segments) == "".join(f"<eos>[{content}]" for content in contents)
    assert sum(isinstance(segment, Control) for segment in segments) == len(contents)


def test_a_template_that_looks_inside_contents_is_refused_only_when_it_matters() -> None:
    source = EACH + "{{ m.content.split('<eos>') | last }}{% endfor %}"
    assert render(source, "plain") == ["plain"]
    with pytest.raises(TemplateError, match="cannot be rendered safely"):
        render(source, "a<eos>b")


def test_templates_have_what_they_expect() -> None:
    assert render(
        "{%- for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    ) == ["012"]
    assert render("{{ strftime_now('%Y') | length }}{{ {'a': '<é>'} | tojson }}") == [
        '4{"a": "<é>"}'
    ]
    assert render("{% generation %}x{% endgeneration %}{{ bos_token }}") == ["x", "<bos>"]
    assert render("{% set n = namespace(x='a') %}{% set n.x = n.x ~ 'b' %}{{ n.x }}") == ["ab"]
    assert render("{{ '%s-%02d' | format('a', 3) }}{{ '{}'.format(4) }}{{ '%d' % 5 }}") == [
        "a-0345"
    ]
    assert render("{% if true %}\n  a\n  {% endif %}\nb") == ["  a\nb"]
    with pytest.raises(TemplateError, match="refuses the conversation: because"):
        render("{{ raise_exception('because') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ '{:>{w}}'.format(1, w='9999999999') }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%9999999999d' | format(1) }}",
        (
            "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{%"
            " endfor %}"
        ),
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 1 / 0 }}",
        "{% for %}",
        "{% include 'x' %}",
    ],
)
def test_hostile_and_broken_templates_end_in_an_error(source: str) -> None:
    with pytest.raises(TemplateError, match="the checkpoint's chat template"):
        render(source, "x", time_limit=0.2)


def test_a_tokenizer_without_turns_is_no_chat_model(
    tokenizer: Tokenizer, chatml: Tokenizer
) -> None:
    bare = with_template(tokenizer, None)
    bare.end_of_turn_id = None
    with pytest.raises(ValueError, match="give it plain text"):
        Chat(bare)
    with pytest.raises(TemplateError, match="does not compile"):
        Chat(with_template(chatml, "{% if %}"))
