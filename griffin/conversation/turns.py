"""What a conversation's turns are: pure functions on values, for terminal and server alike.

A turn is one exchange, a message and its answer, as ids and as text. Nothing here knows a disk, an
engine or a clock. docs/serving.md, "Where a request goes on", has the rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from griffin.sessions import Draft, Turn
from griffin.text import Chat

EXCHANGE = "exchange"  # role of a turn that holds a message and its answer
CONTINUATION = "continuation"  # role of a turn that only goes on with the answer before it
_MARK = "> "

Said = tuple[Literal["user", "assistant"], str]


@dataclass(frozen=True)
class Transcript:
    """All that is to have been read when an answer begins.

    before:  whole turns, oldest first, stored already or not.
    ids:     what follows them, up to where the answer begins; () where a cut answer goes on.
    message: the text in `ids`, None for a cut answer.
    begun:   the text at the end of `ids` with which the answer was begun for the model.
    base:    number of the stored turn that all of it follows, a text that was read; None for none.
    """

    before: tuple[Draft, ...]
    ids: tuple[int, ...]
    message: str | None
    base: int | None = None
    begun: str = ""

    @property
    def all_ids(self) -> tuple[int, ...]:
        """Every id after the base."""
        return (*(i for draft in self.before for i in draft.ids), *self.ids)


@dataclass(frozen=True)
class Place:
    """Where in a tree of turns a line goes on.

    turn: number of the last stored turn; None before the first. rest: what is to be read after it.
    """

    turn: int | None
    rest: Transcript


# From messages to lines.


def words(settings: Mapping[str, Any]) -> str | None:
    """Return the text before a session's first message: tools as described, and system text."""
    return joined(settings.get("tools_text"), settings.get("system"))


def joined(*texts: str | None) -> str | None:
    """Join the parts of the text before a first message; None if there is none."""
    return "\n\n".join(text for text in texts if text) or None


def whole(chat: Chat, talk: Sequence[Said], words: str | None) -> Transcript:
    """Return the line of a conversation that is known as text alone.

    Its last message is a user's, or how the answer to that begins.
    words: the text before the first message. ValueError for what the template refuses.
    """
    parts = chat.exchanges(_messages(talk, words))
    talk, begun = parted(talk)
    last = talk[-1][1] if talk else ""  # an assistant's word comes first
    if len(parts) == 1:  # the first message, or a template that does not show where turns end
        return Transcript((), tuple(parts[0]), last, begun=begun)
    drafts = (
        Draft(role=EXCHANGE, ids=tuple(part), text=join_exchange(message, answer))
        for part, (_, message), (_, answer) in zip(parts[:-1], talk[::2], talk[1::2], strict=False)
    )
    return Transcript(tuple(drafts), tuple(parts[-1]), last, begun=begun)


def parted(talk: Sequence[Said]) -> tuple[list[Said], str]:
    """Part messages from the beginning of the answer to them, which the last one may be."""
    *before, (role, text) = talk
    return (before, text) if role == "assistant" else (list(talk), "")


def following(
    chat: Chat,
    stored: Sequence[Turn],
    talk: Sequence[Said],
    words: str | None,
    *,
    as_read: bool = False,
) -> Transcript:
    """Return the line of stored turns and what is new, under these words.

    stored: the turns from the first to the one that is gone on from.
    talk:   new messages, the last one a user's or how the answer begins; none goes on with a cut
            answer.
    words:  the text before the first message. Where the stored turns were read under others, the
            first is rendered anew, and the ids of later ones stay as they were chosen.
    as_read: the stored turns stay as they are, whatever words they were read under.
    Raises ValueError where ids are missing, and for what the template has no place for.
    """
    texts = [turn for turn in stored if turn.role not in (EXCHANGE, CONTINUATION)]
    first = next((n for n, turn in enumerate(stored) if turn.role == EXCHANGE), len(stored))
    base, turns = (stored[first - 1].number if first else None), stored[first:]
    if not turns:
        line = whole(chat, talk, words) if talk else _cut_answer(True)
        # Where a text was read, BOS stands before that.
        return replace(_rest(line, 1), base=base) if first else line
    rendered = () if as_read else tuple(_rendered(chat, turns[0], words, after_text=first > 0))
    if turns[0].ids[: len(rendered)] == rendered:
        opening = turns[0].ids
    elif chat.native:
        end = chat.tokenizer.end_of_turn_id
        opening = rendered[: rendered.index(end)] + turns[0].ids[turns[0].ids.index(end) :]
    elif len(texts) > first:
        raise ValueError("a text that was read in between cannot be read again under other words")
    else:  # another template may write anything anywhere: all of it anew, by text
        return following(chat, stored[:first], [*_texts(turns), *talk], words)
    drafts = [_as_it_lies(turns[0], opening), *(_as_it_lies(turn, turn.ids) for turn in turns[1:])]
    return _then(chat, drafts, talk, base)


def _then(chat: Chat, drafts: list[Draft], talk: Sequence[Said], base: int | None) -> Transcript:
    """Add new messages to whole turns."""

    def closed() -> bool:
        return drafts[-1].ids[-1] in chat.stop_ids

    said, begun = parted(talk) if talk else ([], "")
    if said and said[0][0] == "assistant":  # after an answer of its own
        _, answer = said.pop(0)
        ids = (*chat.opening_ids(closed()), *chat.reply_ids(answer))
        drafts.append(Draft(role=EXCHANGE, ids=ids, text=join_exchange("", answer)))
    while len(said) > 1:
        (_, message), (_, answer) = said[:2]
        del said[:2]
        ids = (*_message_ids(chat, message, closed()), *chat.reply_ids(answer))
        drafts.append(Draft(role=EXCHANGE, ids=ids, text=join_exchange(message, answer)))
    if not talk:
        return replace(_cut_answer(closed()), before=tuple(drafts), base=base)
    message = said[0][1] if said else ""  # after an answer of its own
    ids = _message_ids(chat, message, closed()) if said else tuple(chat.opening_ids(closed()))
    ids = (*ids, *chat.tokenizer.encode(begun, bos=False))
    return Transcript(tuple(drafts), ids, message, base, begun)


def _cut_answer(closed: bool) -> Transcript:
    if closed:
        raise ValueError("no answer was cut short here; say something to go on")
    return Transcript((), (), None)


def _rendered(chat: Chat, turn: Turn, words: str | None, *, after_text: bool) -> list[int]:
    """Return the ids of a conversation's first message as these words have it."""
    if not turn.ids:
        raise ValueError(
            f"turn {turn.number} is known as text only and cannot be read again under another"
            " system text or other tools; leave those out, or begin a new session"
        )
    message, _ = split_exchange(turn.text or "")
    end = chat.tokenizer.end_of_turn_id
    if chat.native and turn.ids.count(end) > 2:
        # Before December 2026 a conversation that was taken up whole became one turn, with the last
        # message alone as its text. Its first message is in its ids.
        said = _opening_text(chat, turn.ids)
        old = turn.stats.get("system")
        message = said.removeprefix(f"{old.strip()}\n\n") if isinstance(old, str) else said
    ids = chat.ids(_messages([("user", message)], words))
    return ids[1:] if after_text else ids


def words_of(chat: Chat, stored: Sequence[Turn]) -> str | None:
    """Return the text before the first message as its ids tell it; None if they tell none.

    A conversation may have none, and another template than Gemma's may hide it.
    """
    turn = next((turn for turn in stored if turn.role == EXCHANGE), None)
    if turn is None or not turn.ids or not chat.native:
        return None
    message, _ = split_exchange(turn.text or "> \n\n")
    said = _opening_text(chat, turn.ids)
    return said.removesuffix(message.strip()).strip() or None


def _opening_text(chat: Chat, ids: tuple[int, ...]) -> str:
    """Return the text of Gemma's first turn, from its ids."""
    end = chat.tokenizer.end_of_turn_id
    return chat.tokenizer.decode(ids[: ids.index(end)]).partition("user\n")[2]


def _texts(turns: Sequence[Turn]) -> list[Said]:
    """Return turns as the messages they were, a cut answer and what went on with it in one."""
    talk: list[Said] = []
    for turn in turns:
        if turn.text is None:
            raise ValueError(f"the text of turn {turn.number} was not kept; begin a new session")
        if turn.role == CONTINUATION:
            talk[-1] = ("assistant", talk[-1][1] + turn.text)
        else:
            message, answer = split_exchange(turn.text)
            talk.extend([("user", message), ("assistant", answer)])
    return talk


def _as_it_lies(turn: Turn, ids: tuple[int, ...]) -> Draft:
    if not ids:
        raise ValueError(f"the ids of turn {turn.number} were not kept; begin a new session")
    return Draft(role=turn.role, ids=ids, text=turn.text, stats=turn.stats)


def _message_ids(chat: Chat, message: str, closed: bool) -> tuple[int, ...]:
    return tuple(chat.turn_ids({"role": "user", "content": message}, closed=closed))


def _messages(talk: Sequence[Said], words: str | None) -> list[dict[str, Any]]:
    first = [{"role": "system", "content": words}] if words else []
    return [*first, *({"role": role, "content": content} for role, content in talk)]


# From lines and texts to stored turns.


def base_of(tree: Sequence[Turn], line: Sequence[Turn]) -> int | None:
    """Return the number of the text that a session's conversations follow; None for none.

    line: the turns up to where the session stands.
    """
    if not line:
        root = next((turn for turn in tree if turn.parent is None), None)
        line = [root] if root is not None else []
    base = None
    for turn in line:
        if turn.role in (EXCHANGE, CONTINUATION):
            break
        base = turn.number
    return base


def find(chat: Chat, tree: Sequence[Turn], line: Transcript) -> Place:
    """Return where a line goes on: after stored turns whose ids it begins with.

    Of several such turns the one whose state spares most of the reading. One that was cut short
    where the line's own turn goes on is none of them: no turn's text is the rest of another's. So
    an answer that the line begins is in no stored turn, either.
    """
    wanted, children, ends = line.all_ids, _children(tree), _ends_of(chat, line)
    best, stack = (0, 0, line.base), [(0, 0, line.base)]
    while stack:
        _, length, parent = found = stack.pop()
        if length in ends or (length > max(ends) and not line.begun):
            best = max(best, found, key=lambda each: each[:2])
        for turn in children[parent]:
            end = length + len(turn.ids)
            if turn.ids and wanted[length:end] == turn.ids:
                stack.append((end if turn.kept else found[0], end, turn.number))
    _, length, number = best
    return Place(number, _rest(line, length))


def _ends_of(chat: Chat, line: Transcript) -> set[int]:
    """Return after how many ids the turns of a line end, with the token that ends them and
    without."""
    ends, count = {0}, 0
    for draft in line.before:
        if draft.ids[0] in chat.stop_ids:
            ends.add(count + 1)
        count += len(draft.ids)
        ends.add(count)
        if draft.ids[-1] in chat.stop_ids:
            ends.add(count - 1)
    return ends


def agreeing(
    tree: Sequence[Turn], talk: Sequence[Said], line: Sequence[Turn]
) -> tuple[int | None, int]:
    """Return the turn up to which stored texts agree with messages, and how many these are.

    All branches are looked through: an edited message leads to the turn before it. Of several that
    agree as far, the one on `line`, where the session stands, or the youngest.
    """
    on_line = {turn.number for turn in line}
    children, base = _children(tree), base_of(tree, line)
    best: tuple[int, bool, int, int | None] = (0, False, 0, base)
    stack: list[tuple[int, int | None]] = [(0, base)]
    while stack:
        known, parent = stack.pop()
        if known:
            assert parent is not None
            best = max(best, (known, parent in on_line, parent, parent), key=lambda one: one[:3])
        if known + 2 > len(talk) - 1:
            continue
        (_, message), (_, answer) = talk[known : known + 2]
        stack += [(known + 2, end) for end in _ends(children, parent, message, answer)]
    return best[3], best[0]


def _ends(
    children: dict[int | None, list[Turn]], parent: int | None, message: str, answer: str
) -> list[int]:
    """Return the turns at which an exchange ends, those that go on with a cut answer included."""
    found: list[int] = []
    for turn in children[parent]:
        if turn.role != EXCHANGE or turn.text is None:
            continue
        asked, said = split_exchange(turn.text)
        if asked.strip() != message.strip():
            continue
        stack = [(said, turn.number)]
        while stack:
            said, number = stack.pop()
            if said.strip() == answer.strip():
                found.append(number)
            stack += [
                (said + more.text, more.number)
                for more in children[number]
                if more.role == CONTINUATION and more.text is not None
            ]
    return found


def _children(tree: Sequence[Turn]) -> dict[int | None, list[Turn]]:
    children: dict[int | None, list[Turn]] = defaultdict(list)
    for turn in tree:
        children[turn.parent].append(turn)
    return children


def _rest(line: Transcript, length: int) -> Transcript:
    """Return a line without its first `length` ids."""
    before: list[Draft] = []
    held: tuple[int, ...] = ()  # the end of a turn whose stored twin was cut before it
    for draft in line.before:
        ids = (*held, *draft.ids[max(0, length) :])
        length -= len(draft.ids)
        if length >= 0:
            held = ()
        elif before or len(ids) > 1:
            before.append(replace(draft, ids=ids))
            held = ()
        else:
            held = ids
    return replace(line, before=tuple(before), ids=held + line.ids[max(0, length) :])


# What is kept of an answer.


def answered(chat: Chat, line: Transcript, answer: Sequence[int], text: str) -> Draft:
    """Return the turn that an answer makes of a line's open end, closed by the token that ends
    one. What the answer was begun with belongs to it."""
    ids = (*line.ids, *chat.closed(answer))
    if line.message is None:
        return Draft(role=CONTINUATION, ids=ids, text=text)
    return Draft(role=EXCHANGE, ids=ids, text=join_exchange(line.message, line.begun + text))


def join_exchange(message: str, answer: str) -> str:
    """Return a message and its answer as one text for people.

    It is each line of the message after "> ", an empty line, and the answer.
    """
    quoted = "\n".join(_MARK + line for line in message.split("\n"))
    return f"{quoted}\n\n{answer}"


def split_exchange(text: str) -> tuple[str, str]:
    """Return message and answer, the inverse of `join_exchange`; ValueError for other texts."""
    lines = text.split("\n")
    count = next((n for n, line in enumerate(lines) if not line.startswith(_MARK)), len(lines))
    if not count or lines[count : count + 1] != [""]:
        raise ValueError(f"{text[:60]!r} is not a message and its answer")
    message = "\n".join(line.removeprefix(_MARK) for line in lines[:count])
    return message, "\n".join(lines[count + 1 :])
