"""Turns as values: which ids a conversation has, and which stored turns it agrees with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.conversation import Conversation, begin, turns
from griffin.conversation.turns import CONTINUATION, EXCHANGE, Transcript
from griffin.sessions import Draft

FIELDS = {"temperature": 0, "max_tokens": 5}


@pytest.fixture
def talk(llm):
    made = Conversation(llm, begin(llm, None), sampling=dict(FIELDS))
    yield made
    made.close()


def say(talk, *messages):
    return ["".join(talk.say(message)) for message in messages]


def following(talk, said, words=None, **options):
    return turns.following(talk.llm.chat_format, talk.session.turns(), said, words, **options)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None, max_examples=40)
@given(words=st.none() | texts, said=st.lists(texts, min_size=1, max_size=7))
def test_a_whole_conversation_is_its_turns_in_a_row(llm, words, said):
    said = said if len(said) % 2 else said[:-1]
    talk = [(("user", "assistant")[n % 2], text) for n, text in enumerate(said)]
    line = turns.whole(llm.chat_format, talk, words)
    first = [] if not words else [{"role": "system", "content": words}]
    messages = first + [{"role": role, "content": text} for role, text in talk]
    assert list(line.all_ids) == llm.chat_format.ids(messages)
    assert len(line.before) == len(said) // 2 and line.message == said[-1]
    for draft, message, answer in zip(line.before, said[::2], said[1::2], strict=False):
        assert turns.split_exchange(draft.text) == (message, answer)
        assert draft.ids[-1] == llm.tokenizer.end_of_turn_id


def test_new_words_render_the_first_message_anew_and_keep_the_answers_ids(llm, talk):
    say(talk, "one", "two")
    stored = talk.session.turns()
    old = following(talk, [("user", "three")])
    assert [draft.ids for draft in old.before] == [turn.ids for turn in stored]
    new = following(talk, [("user", "three")], "Be kind.")
    rendered = llm.chat_format.ids(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "one"}]
    )
    answer = len(stored[0].ids) - len(llm.chat_format.ids([{"role": "user", "content": "one"}]))
    assert new.before[0].ids == (*rendered, *stored[0].ids[-answer:])
    assert new.before[1].ids == stored[1].ids and new.ids == old.ids
    assert following(talk, [("user", "three")], "x", as_read=True) == old


def test_a_line_goes_on_after_the_longest_stored_beginning(llm, talk):
    say(talk, "one", "two")
    line = following(talk, [("user", "three")])
    place = turns.find(talk.llm.chat_format, talk.session.tree(), line)
    assert (place.turn, place.rest.before, place.rest.ids) == (2, (), line.ids)
    other = following(talk, [("user", "three")], "Other words.")
    place = turns.find(talk.llm.chat_format, talk.session.tree(), other)
    assert place.turn is None and place.rest.before == other.before
    talk.undo()
    say(talk, "another two")
    place = turns.find(talk.llm.chat_format, talk.session.tree(), following(talk, [("user", "x")]))
    assert place.turn == 3
    edited = turns.whole(llm.chat_format, [("user", "one else")], None)
    assert turns.find(talk.llm.chat_format, talk.session.tree(), edited).turn is None


def test_a_cut_answer_is_closed_by_the_line_that_follows_it(llm, talk):
    cut = say(talk, "one")[0]
    assert talk.context.pending[-1] not in llm.chat_format.stop_ids  # five tokens do not end it
    whole = [("user", "one"), ("assistant", cut), ("user", "two")]
    line = turns.whole(llm.chat_format, whole, None)
    stored = talk.session.turns()[0].ids
    place = turns.find(talk.llm.chat_format, talk.session.tree(), line)
    if line.all_ids[: len(stored)] == stored:  # it was chosen as it is encoded
        assert place.turn == 1 and place.rest.before == ()
        assert place.rest.ids[0] == llm.tokenizer.end_of_turn_id
        assert place.rest.ids == following(talk, [("user", "two")]).ids


def test_no_turn_is_the_rest_of_one_that_was_cut_short(llm, talk):
    """The same answer, cut earlier, is stored under the words that it is read again under."""
    say(talk, "one")
    talk.set("max_tokens", 2)
    talk.instruct("Be brief.")
    talk.goto(0)
    say(talk, "one")
    talk.goto(1)
    [whole], cut = talk.session.turns(), talk.session.tree()[1]
    line = following(talk, [("user", "two")], "Be brief.")
    assert line.before[0].ids[: len(cut.ids)] == cut.ids  # the answers begin alike here
    place = turns.find(llm.chat_format, talk.session.tree(), line)
    assert (place.turn, place.rest) == (None, line)
    say(talk, "two")
    assert talk.session.turns()[0].text == whole.text and len(talk.session.turns()) == 2


def test_an_answer_that_was_cut_goes_on_as_if_it_had_not_been(llm, talk):
    first = say(talk, "one")[0]
    more = "".join(talk.go_on())
    uncut = llm.chat([{"role": "user", "content": "one"}], temperature=0, max_tokens=10)
    assert first + more == uncut.text
    kinds = [turn.role for turn in talk.session.turns()]
    assert kinds == [EXCHANGE, CONTINUATION]
    assert [i for turn in talk.session.turns() for i in turn.ids][-10:] == list(uncut.ids)
    said = [("user", "one"), ("assistant", first + more), ("user", "two")]
    tree = talk.session.tree()
    assert turns.agreeing(tree, said, talk.session.turns()) == (2, 2)
    list(talk.regenerate())
    assert [turn.role for turn in talk.session.turns()] == [EXCHANGE]


def test_what_is_whole_cannot_be_gone_on_with(llm, talk):
    with pytest.raises(ValueError, match="no answer was cut short"):
        list(talk.go_on())
    end = llm.tokenizer.end_of_turn_id
    talk.set("logit_bias", {end: 100.0})
    say(talk, "one")
    with pytest.raises(ValueError, match="no answer was cut short"):
        list(talk.go_on())


def test_a_conversation_agrees_by_text_up_to_the_first_edit(llm, talk):
    answers = say(talk, "one", "two", "three")
    said = [("user", "one"), ("assistant", answers[0]), ("user", "two"), ("assistant", answers[1])]
    tree, line = talk.session.tree(), talk.session.turns()
    assert turns.agreeing(tree, [*said, ("user", "x")], line) == (2, 4)
    assert turns.agreeing(tree, [*said[:2], ("user", "x")], line) == (1, 2)
    assert turns.agreeing(tree, [("user", "x")], line) == (None, 0)
    edited = [("user", " one "), ("assistant", f"{answers[0]}\n"), ("user", "no"), *said[3:]]
    assert turns.agreeing(tree, [*edited, ("user", "x")], line) == (1, 2)
    talk.undo(2)
    say(talk, "two")  # the same text on another branch: the one where it stands
    tree, line = talk.session.tree(), talk.session.turns()
    assert turns.agreeing(tree, [*said, ("user", "x")], line) == (4, 4)


def test_new_messages_may_hold_answers_of_the_programs_own(llm, talk):
    say(talk, "one")
    said = [("assistant", "mine"), ("user", "two"), ("assistant", "b"), ("user", "three")]
    line = following(talk, said)
    text = llm.tokenizer.decode(line.all_ids, skip_control=False)
    assert text.endswith(
        "<end_of_turn>\n<start_of_turn>model\nmine<end_of_turn>\n<start_of_turn>user\ntwo"
        "<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>user\nthree"
        "<end_of_turn>\n<start_of_turn>model\n"
    )
    assert len(line.before) == 3 and line.message == "three"
    line = following(talk, said[:1])  # another answer, which begins with that
    text = llm.tokenizer.decode(line.all_ids, skip_control=False)
    assert text.endswith("<end_of_turn>\n<start_of_turn>model\nmine")
    assert (line.message, line.begun, len(line.before)) == ("", "mine", 1)


def test_an_answer_that_was_begun_is_kept_whole(llm, talk):
    say(talk, "one")
    talk.prefill = " Well,"
    pieces = list(talk.say("two"))
    assert pieces[0].startswith(" Well,") and talk.prefill == ""
    [_, turn] = talk.session.turns()
    assert turn.text == turns.join_exchange("two", "".join(pieces))
    ids = (*following(talk, [("user", "two")]).ids, *llm.tokenizer.encode(" Well,", bos=False))
    start = talk.session.turns()[0].ids
    assert turn.ids[: len(ids)] == ids and turn.role == EXCHANGE
    first = turns.split_exchange(talk.session.turns()[0].text)
    said = [("user", first[0]), ("assistant", first[1]), ("user", "two"), ("assistant", " Well,")]
    messages = [{"role": role, "content": text} for role, text in said]
    if llm.chat_format.ids(messages)[: len(start)] == list(start):  # chosen as it is encoded
        answer = llm.chat(messages, **FIELDS)
        assert " Well," + answer.text == "".join(pieces)
    list(talk.regenerate())
    assert not talk.session.turns()[-1].text.startswith("> two\n\n Well,")


def test_an_answer_that_the_line_begins_is_in_no_stored_turn(llm, talk):
    cut = say(talk, "one")[0]
    said = [("user", "one"), ("assistant", cut)]
    line = turns.whole(llm.chat_format, said, None)
    place = turns.find(talk.llm.chat_format, talk.session.tree(), line)
    assert (place.turn, place.rest) == (None, line) and line.begun == cut
    done = turns.answered(llm.chat_format, place.rest, [5], " more")
    assert done.role == EXCHANGE and turns.split_exchange(done.text) == ("one", cut + " more")
    assert done.ids == (*line.ids, 5)


def test_the_words_can_be_told_from_the_ids(llm):
    session = begin(llm, None, system="Be brief.\n\nAnd kind.")
    talk = Conversation(llm, session, sampling=dict(FIELDS))
    say(talk, "one\n\ntwo", "three")
    assert turns.words_of(llm.chat_format, session.turns()) == "Be brief.\n\nAnd kind."
    talk.instruct(None)
    say(talk, "four")
    assert turns.words_of(llm.chat_format, talk.session.turns()) is None
    assert len(talk.session.branches()) == 2


def test_ids_that_are_missing_are_said(llm, talk):
    say(talk, "one")
    bare = talk.session.turns()
    object.__setattr__(bare[0], "packed_ids", b"")
    with pytest.raises(ValueError, match="turn 1 is known as text only"):
        turns.following(llm.chat_format, bare, [("user", "two")], "Other.")


def test_a_rest_begins_where_the_line_was_left():
    line = Transcript(
        (Draft(EXCHANGE, (1, 2, 3), "a"), Draft(EXCHANGE, (4, 5, 6), "b")), (7, 8), "c"
    )
    for length, before, ids in [
        (0, [(1, 2, 3), (4, 5, 6)], (7, 8)),
        (1, [(2, 3), (4, 5, 6)], (7, 8)),
        (2, [(3, 4, 5, 6)], (7, 8)),  # the end of a turn alone goes with the next
        (3, [(4, 5, 6)], (7, 8)),
        (5, [], (6, 7, 8)),
        (6, [], (7, 8)),
        (8, [], ()),
    ]:
        rest = turns._rest(line, length)
        assert ([draft.ids for draft in rest.before], rest.ids) == (before, ids)
        assert rest.all_ids == line.all_ids[length:]
