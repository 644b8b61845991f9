"""Conversations on a session and in memory: the same laws for both."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch

import griffin
from griffin.conversation import Conversation, fingerprint_of, split_exchange
from griffin.conversation import begin as begin_session
from griffin.sessions import SessionBusy, StateInfo, Store, UnknownTurn, save_state_file

FIELDS = {"temperature": 0, "max_tokens": 9}
VOCABULARY = 512  # ids of the toy


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture(params=["session", "memory"])
def begin(request, llm, store):
    """A function that begins a conversation of one kind; all are closed at the end."""
    begun: list[Conversation] = []

    def new(system=None, **options):
        thread = begin_session(llm, store if request.param == "session" else None, system=system)
        begun.append(Conversation(llm, thread, **{"sampling": dict(FIELDS), **options}))
        return begun[-1]

    yield new
    for talk in begun:
        talk.close()


def said(talk, message):
    return "".join(talk.say(message))


def equal(one, other):
    """Whether two contexts go on in the same way, bit for bit."""
    assert (one.pending, one.tokens) == (other.pending, other.tokens)
    assert torch.equal(one.seen.marks(VOCABULARY), other.seen.marks(VOCABULARY))
    assert torch.equal(one.state.pos, other.state.pos)
    layers = zip(one.state.layers, other.state.layers, strict=True)
    return all(torch.equal(a, b) for x, y in layers for a, b in zip(x, y, strict=True))


def test_turns_equal_the_whole_conversation(llm, begin, monkeypatch):
    talk = begin("Be brief.")
    first = said(talk, "one")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    assert first == llm.chat(messages, **FIELDS).text
    answer = list(llm.chat(messages, **FIELDS).ids)
    sizes: list[int] = []
    trunk = llm.model.trunk
    monkeypatch.setattr(
        llm.model, "trunk", lambda t, *a, **k: sizes.append(t.shape[1]) or trunk(t, *a, **k)
    )
    second = said(talk, "two")
    monkeypatch.undo()
    new = llm.chat_format.turn_ids({"role": "user", "content": "two"})
    assert sizes[0] == 1 + len(new), "only the last token of the answer and the new turn are read"
    whole = llm.chat_format.ids(messages) + answer + new
    assert second == llm.generate(whole, **FIELDS).text
    assert talk.tokens == talk.context.tokens == len(whole) + 9
    assert split_exchange(talk.session.turns()[1].text) == ("two", second)


@pytest.mark.parametrize("which", ["eos_id", "end_of_turn_id"])
def test_a_turn_that_the_model_ended_is_not_ended_twice(llm, begin, which):
    stop = getattr(llm.tokenizer, which)
    talk = begin(sampling={"logit_bias": {stop: 100.0}})
    assert said(talk, "one") == ""
    talk.resume()
    talk = begin_again(llm, talk, FIELDS | {"max_tokens": 4})
    answer = said(talk, "two")
    end = llm.tokenizer.end_of_turn_id
    whole = [*llm.chat_format.ids([{"role": "user", "content": "one"}]), end]
    whole += llm.chat_format.turn_ids({"role": "user", "content": "two"}, closed=True)
    assert answer == llm.generate(whole, temperature=0, max_tokens=4).text
    assert talk.tokens == len(whole) + 4


def begin_again(llm, talk, sampling):
    """The same thread in new hands, as after a restart."""
    return Conversation(llm, talk.session, sampling=dict(sampling))


def test_an_answer_that_is_stopped_stays_said(llm, begin):
    talk = begin()
    with closing(talk.say("one")) as pieces:
        for _ in range(3):
            next(pieces)
    start = llm.chat_format.ids([{"role": "user", "content": "one"}])
    assert talk.tokens == len(start) + 3 and talk.result.finish_reason == "cancelled"
    part = list(llm.generate(start, temperature=0, max_tokens=3).ids)
    new = llm.chat_format.turn_ids({"role": "user", "content": "two"})
    assert said(talk, "two") == llm.generate(start + part + new, **FIELDS).text


def test_an_interrupted_step_leaves_the_conversation_as_it_was(llm, begin, monkeypatch):
    talk = begin()
    said(talk, "one")
    before = talk.context

    def torn(*_arguments, **_options):
        raise KeyboardInterrupt

    pieces = talk.say("two")
    next(pieces)
    monkeypatch.setattr(llm.model, "trunk", torn)
    with pytest.raises(KeyboardInterrupt):
        list(pieces)
    monkeypatch.undo()
    assert talk.context is before and len(talk.session.turns()) == 1
    fresh = begin()
    said(fresh, "one")
    assert said(talk, "three") == said(fresh, "three") and equal(talk.context, fresh.context)


def test_resuming_after_every_turn_equals_an_uninterrupted_talk(llm, begin):
    messages = ["one", "two and more", "three", "four, past the window's edge"]
    straight, halting = begin(), begin()
    for message in messages:
        answer = said(straight, message)
        halting = begin_again(llm, halting, FIELDS)
        assert said(halting, message) == answer
        assert equal(halting.context, straight.context)
        halting.resume()
        assert equal(halting.context, straight.context)
    assert straight.tokens > 3 * llm.model.config.attention_window_size


def test_undo_then_another_message_equals_never_having_said_it(begin):
    talk, never = begin(), begin()
    for message in ("one", "two"):
        assert said(talk, message) == said(never, message)
    said(talk, "a mistake")
    said(talk, "and more of it")
    talk.undo(2)
    assert said(talk, "three") == said(never, "three")
    assert equal(talk.context, never.context)
    talk.undo(3)
    assert talk.context.state is None and talk.tokens == 0
    talk.redo(2)
    never.undo()
    assert equal(talk.context, never.context)


def test_branches_and_going_to_them(begin):
    talk = begin()
    for message in ("one", "two"):
        said(talk, message)
    two = talk.context
    talk.undo()
    said(talk, "other")
    other = talk.context
    ways = [(way.tip.number, way.turns, way.shared, way.current) for way in talk.session.branches()]
    assert ways == [(2, 2, 1, False), (3, 2, 2, True)]
    talk.goto(2)
    assert equal(talk.context, two)
    talk.goto(0)
    talk.redo(2)
    assert equal(talk.context, two), "redo goes the way one was on"
    talk.goto(3)
    assert equal(talk.context, other)
    for wrong in (lambda: talk.goto(9), lambda: talk.undo(3), lambda: talk.redo()):
        with pytest.raises(UnknownTurn):
            wrong()
    assert talk.session.head.number == 3 and equal(talk.context, other)


def test_regenerate_answers_the_same_message_on_a_branch(begin):
    talk = begin()
    said(talk, "one")
    first, context = said(talk, "two"), talk.context
    talk.attach("for later")
    assert "".join(talk.regenerate()) == first and equal(talk.context, context)
    assert [way.turns for way in talk.session.branches()] == [2, 2] and talk.attached == "for later"
    pieces = talk.regenerate()
    with pytest.raises(RuntimeError):
        next(pieces)
        pieces.throw(RuntimeError("torn"))
    assert talk.session.head.number == 3, "the old answer stays"


def test_what_was_set_is_there_after_a_restart(llm, begin):
    talk = begin("Be kind.", sampling={"max_tokens": 5})
    talk.set("temperature", 0)
    talk.set("stop", ("xyz",))
    with pytest.raises(ValueError, match="top_p"):
        talk.set("top_p", 7)
    again = begin_again(llm, talk, {"max_tokens": 6})
    assert again.sampling == {"temperature": 0, "stop": ("xyz",), "max_tokens": 6}
    assert again.system == "Be kind."
    again.instruct(None)
    assert again.system is None and again.tokens == 0


def test_a_message_that_is_too_long_changes_nothing(begin):
    talk = begin(max_message_tokens=30)
    said(talk, "one")
    before = talk.context
    for wrong in (lambda: said(talk, "long " * 99), lambda: talk.attach("long " * 99)):
        with pytest.raises(ValueError, match=r"has \d+ tokens; this chat takes 30"):
            wrong()
    assert talk.context is before and talk.attached == ""


def test_a_fork_goes_its_own_way(llm, store):
    with closing(Conversation(llm, begin_session(llm, store, "a"), sampling=dict(FIELDS))) as talk:
        said(talk, "one")
        one = talk.context
        talk.fork(store, "b")
        assert equal(talk.context, one)
        said(talk, "two")
        with store.open("a", fingerprint_of(llm)) as first:
            assert len(first.turns()) == 1
        with pytest.raises(SessionBusy):
            store.open("b", fingerprint_of(llm))


def state_file(llm, path, text):
    """Write what `griffin state build` writes of a short text."""
    from griffin.sessions import NOTHING, extend_chain

    ids = llm.tokenizer.encode(text)
    context = llm.read([ids])
    info = StateInfo(
        fingerprint=fingerprint_of(llm),
        config=llm.model.config,
        tokens=len(ids),
        chain=extend_chain(NOTHING, ids).hex(),
        pending=context.pending,
    )
    save_state_file(path, info, context.state)
    return ids


def test_a_conversation_that_begins_from_a_state_file(llm, store, tmp_path):
    ids = state_file(llm, tmp_path / "x.state", "A long story, " * 12)
    turn = llm.chat_format.ids([{"role": "user", "content": "one"}])[1:]
    kept = store.import_(tmp_path / "x.state", "x")
    with store.open(kept.name, fingerprint_of(llm)) as session:
        talk = Conversation(llm, session, sampling=dict(FIELDS))
        nowhere = Store.in_memory()
        nowhere.import_(tmp_path / "x.state", "x")
        in_memory = Conversation(llm, nowhere.open("x", fingerprint_of(llm)), sampling=dict(FIELDS))
        answer = said(talk, "one")
        assert answer == said(in_memory, "one") == llm.generate([*ids, *turn], **FIELDS).text
        after = talk.context
        assert equal(after, in_memory.context)
        talk.resume()
        assert equal(talk.context, after), "what is penalised for repetition is the same too"
        for one in (talk, in_memory):
            one.undo()
            assert one.tokens == len(ids)
            one.redo()
            assert equal(one.context, after)


def test_memory_is_saved_with_all_that_was_said(llm, store):
    talk = Conversation(llm, begin_session(llm, None), sampling=dict(FIELDS))
    with pytest.raises(ValueError, match="nothing has been said yet"):
        talk.save(store, "x")
    contexts = []
    for message in ("one", "two", "three"):
        said(talk, message)
        contexts.append(talk.context)
    talk.undo(2)
    said(talk, "other")
    assert talk.name == "" and store.list() == ()
    assert talk.save(store, "x") == talk.name == "x" and talk.kept
    assert [way.turns for way in talk.session.branches()] == [3, 2]
    for number, context in enumerate(contexts, start=1):
        talk.goto(number)
        assert equal(talk.context, context)
    assert store.check() == ()
    talk.close()


def test_turns_that_came_as_text_are_read_again(llm, store, tmp_path):
    straight = Conversation(llm, begin_session(llm, None), sampling=dict(FIELDS))
    said(straight, "one")
    after_one = straight.tokens
    said(straight, "two")
    straight.session.export(tmp_path / "x.state")
    store.import_(tmp_path / "x.state", "x")
    talk = Conversation(llm, store.open("x", fingerprint_of(llm)), sampling=dict(FIELDS))
    talk.undo()
    straight.undo()
    assert talk.context.state is None and talk.tokens == after_one == len(talk.context.pending)
    assert said(talk, "other") == said(straight, "other")
    assert talk.session.chain == straight.session.chain
    talk.close()


def test_a_session_that_cannot_be_written_goes_on_in_memory(llm, store, monkeypatch):
    straight = Conversation(llm, begin_session(llm, None), sampling=dict(FIELDS))
    talk = Conversation(llm, begin_session(llm, store, "x"), sampling=dict(FIELDS))
    for message in ("one", "two"):
        said(talk, message)
        said(straight, message)
    monkeypatch.setattr(store.folder, "quota_bytes", 10)
    assert said(talk, "three") == said(straight, "three")
    assert (
        not talk.kept
        and "exceed the quota" in talk.trouble
        and equal(talk.context, straight.context)
    )
    assert said(talk, "four") == said(straight, "four") and equal(talk.context, straight.context)
    talk.undo(2)
    straight.undo(2)
    assert equal(talk.context, straight.context)
    talk.undo()  # only its ids came along to memory
    assert talk.context.state is None and talk.context.tokens == len(talk.context.pending)
    talk.redo()
    with store.open("x", fingerprint_of(llm)) as session:
        assert len(session.turns()) == 2
    talk.redo(2)
    monkeypatch.setattr(store.folder, "quota_bytes", None)
    talk.save(store, "y")
    assert talk.kept and len(talk.session.turns()) == 4
    talk.close()


def test_an_interrupt_in_a_commit_leaves_what_is_on_the_disk(llm, store, monkeypatch):
    talk = Conversation(llm, begin_session(llm, store, "x"), sampling=dict(FIELDS))
    said(talk, "one")
    commit = talk.session.commit

    def late(**turn):
        commit(**turn)
        raise KeyboardInterrupt

    monkeypatch.setattr(talk.session, "commit", late)
    with pytest.raises(KeyboardInterrupt):
        said(talk, "two")
    assert (
        talk.tokens == talk.context.tokens == talk.session.head.tokens
        and len(talk.session.turns()) == 2
    )
    talk.close()


def test_the_fingerprint_names_what_differs(llm, folder):
    own = fingerprint_of(llm)
    assert own == fingerprint_of(griffin.load(folder, device="cpu"))
    assert own.weights == llm.weights_digest and own.quantization == "none"
    rounded = fingerprint_of(griffin.load(folder, device="cpu", quantize="int8"))
    assert set(own.differences(rounded)) == {"quantization"}
    bare = griffin.LLM(llm.model, llm.tokenizer)
    assert set(own.differences(fingerprint_of(bare))) == {"weights"}
    with torch.no_grad():
        weight = llm.model.model.final_norm.weight
        weight[0] += 1
        changed = griffin.LLM(llm.model, llm.tokenizer).weights_digest
        weight[0] -= 1
    assert changed != bare.weights_digest


@pytest.mark.parametrize("given", [3, "hot", [("temperature", 0)]])
def test_sampling_that_is_no_fields_is_named(llm, given):
    wanted = pytest.raises(ValueError, match=r"sampling must be a dict of fields .*, not ")
    with closing(begin_session(llm, None)) as thread, wanted:
        Conversation(llm, thread, sampling=given)
