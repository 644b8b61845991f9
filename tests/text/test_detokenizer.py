import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from griffin.text import StreamDetokenizer, Tokenizer
from tests.support.hard_texts import texts

ids_lists = st.lists(st.integers(0, 599) | st.integers(10, 265), max_size=25)
stop_lists = st.lists(
    st.sampled_from(["\n", "\n\n", "aab", "aa", "ab", "self", "é", "<end_of_turn>", "漢字"]),
    max_size=4,
)


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Cut before the stop string that is complete first, read off prefix by prefix."""
    for end in range(len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            stop = max(met, key=len)
            return text[: end - len(stop)], stop
    return text, None


def stream(tokenizer: Tokenizer, ids: list[int], stops: list[str]) -> tuple[list[str], str | None]:
    detokenizer = StreamDetokenizer(tokenizer, stops)
    pieces = [detokenizer.push(id) for id in ids]
    pieces.append(detokenizer.finish())
    assert detokenizer.finish() == ""
    return pieces, detokenizer.stopped


@given(ids=ids_lists, stops=stop_lists)
def test_any_ids_stream_to_what_decode_gives(
    tokenizer: Tokenizer, ids: list[int], stops: list[str]
) -> None:
    pieces, stopped = stream(tokenizer, ids, stops)
    assert ("".join(pieces), stopped) == cut(tokenizer.decode(ids), stops)


@given(text=texts | st.text(alphabet="ab", max_size=12), stops=stop_lists)
@example(text="aab", stops=["ab", "aab"])
@example(text="aaab", stops=["aab"])
@example(text="aababaab", stops=["abaab", "abb"])
def test_text_streams_cut_at_the_first_stop_string(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    ids = tokenizer.encode(text)
    pieces, stopped = stream(tokenizer, ids, stops)
    assert ("".join(pieces), stopped) == cut(tokenizer.decode(ids), stops)


@given(ids=ids_lists, stops=stop_lists, early=st.integers(0, 12))
def test_no_stop_string_counts_in_the_text_of_early_ids(
    tokenizer: Tokenizer, ids: list[int], stops: list[str], early: int
) -> None:
    detokenizer = StreamDetokenizer(tokenizer, stops, early=early)
    pieces = [detokenizer.push(id) for id in ids]
    whole, passed = tokenizer.decode(ids), len("".join(pieces[:early]))
    text, stopped = cut(whole[passed:], stops)
    assert "".join(pieces) + detokenizer.finish() == whole[:passed] + text
    assert detokenizer.stopped == stopped
    if len(ids) > early:
        assert whole.startswith(tokenizer.decode(ids[:early]).rstrip("\ufffd"))


@given(text=texts.filter(lambda text: "\ufffd" not in text))
def test_no_replacement_character_is_shown_that_would_resolve(
    tokenizer: Tokenizer, text: str
) -> None:
    pieces, _ = stream(tokenizer, tokenizer.encode(text), [])
    assert "\ufffd" not in "".join(pieces) and pieces[-1] == ""


@given(text=texts, stops=stop_lists.filter(bool))
def test_what_is_shown_early_is_as_much_as_can_be(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    """After each token: everything decoded but the longest end that may begin a stop string, and no
    more."""
    detokenizer = StreamDetokenizer(tokenizer, stops)
    shown, ids = "", []
    for id in tokenizer.encode(text):
        ids.append(id)
        shown += detokenizer.push(id)
        whole = tokenizer.decode(ids).rstrip("\ufffd") if "\ufffd" not in text else None
        if whole is None or detokenizer.stopped:
            break
        begun = [n for stop in stops for n in range(1, len(stop)) if whole.endswith(stop[:n])]
        assert shown == whole[: len(whole) - max(begun, default=0)]


def test_half_characters_wait(tokenizer: Tokenizer) -> None:
    e2, x82, xac = tokenizer.encode("€", bos=False)
    detokenizer = StreamDetokenizer(tokenizer)
    assert [detokenizer.push(id) for id in (e2, x82, xac)] == ["", "", "€"]
    assert [detokenizer.push(id) for id in (e2, e2)] == ["", "\ufffd"]
    assert detokenizer.finish() == "\ufffd"


def test_offsets_say_where_a_token_begins(tokenizer: Tokenizer) -> None:
    text = "def 漢 self"
    detokenizer = StreamDetokenizer(tokenizer, ["never"])
    for id in tokenizer.encode(text):
        at = detokenizer.offset
        detokenizer.push(id)
        assert (
            text.startswith(tokenizer.token_text(id).strip("\ufffd"), at) or id == tokenizer.bos_id
        )
    assert detokenizer.offset == len(text)


def test_control_tokens_show_only_when_asked(tokenizer: Tokenizer) -> None:
    assert StreamDetokenizer(tokenizer).push(6) == ""
    assert StreamDetokenizer(tokenizer, skip_control=False).push(6) == "<end_of_turn>"


def test_after_the_stop_nothing_comes(tokenizer: Tokenizer) -> None:
    detokenizer = StreamDetokenizer(tokenizer, ["STOP"])
    shown = "".join(map(detokenizer.push, tokenizer.encode("go ST STOP and on")))
    assert (shown, detokenizer.stopped, detokenizer.finish()) == ("go ST ", "STOP", "")


def test_wrong_stop_strings_and_ids_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="empty"):
        StreamDetokenizer(tokenizer, ["a", ""])
    with pytest.raises(ValueError, match="list of strings"):
        StreamDetokenizer(tokenizer, "stop")
    with pytest.raises(ValueError, match="id 600"):
        StreamDetokenizer(tokenizer).push(600)
