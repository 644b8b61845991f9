"""Which tokens of a conversation a model is to learn: its answers, with what ends each.

The conversation is rendered as for generation, and answers are encoded by themselves, as they are
when a model writes them. Where they stand is found by rendering once more with a mark in the place
of each, so no template needs to say it.
"""

from __future__ import annotations

from collections.abc import Sequence

from griffin.text.chat import Chat, Message, checked_messages
from griffin.text.template import Control, Segment, TemplateError, free_character

Part = tuple[list[int], bool]  # ids, and whether they are learned


def lesson(
    chat: Chat, messages: Sequence[Message], first: int = 0, cut: bool = False
) -> list[Part]:
    """Return a conversation's ids from BOS to the end of its last answer, in parts.

    first: the message from which on answers are learned; those before are read alone. cut: the last
    answer was not finished, so that no end of it is learned.
    White space around an answer goes if the template takes it away, as Gemma's does. Raises
    ValueError as `Chat.ids` does, and TemplateError (one too) if the checkpoint's template rewrites
    answers, so that it cannot be seen where they stand.
    """
    checked = checked_messages(messages)
    earlier = len([1 for message in messages[:first] if message["role"] in ("assistant", "model")])
    mark = free_character([content for _, content in checked])
    answers = [content for role, content in checked if role == "assistant"]
    marked = [(role, mark if role == "assistant" else content) for role, content in checked]
    pieces = _cut_at(chat.segments(marked, False), mark)
    whole = "".join(chat.segments(checked, False))
    answers = next(
        (
            texts
            for texts in (answers, [answer.strip() for answer in answers])
            if _filled(pieces, mark, texts) == whole
        ),
        None,
    )
    if answers is None:
        raise TemplateError(
            "the checkpoint's chat template rewrites answers: it cannot be seen which tokens to"
            " learn"
        )
    parts: list[Part] = [([chat.tokenizer.bos_id], False)]
    places = [place for place, piece in enumerate(pieces) if piece == mark]
    last = -1
    for number, place in enumerate(places):
        parts.append((chat.segment_ids(pieces[last + 1 : place]), False))
        last = _end(chat, pieces, place)
        if cut and place == places[-1]:
            last = place
        ids = chat.tokenizer.encode(answers[number], bos=False)
        parts.append((ids + chat.segment_ids(pieces[place + 1 : last + 1]), number >= earlier))
    return parts


def _cut_at(segments: Sequence[Segment], mark: str) -> list[Segment]:
    """Return the segments with each mark a segment of its own."""
    pieces = list[Segment]()
    for segment in segments:
        if isinstance(segment, Control):
            pieces.append(segment)
            continue
        for number, piece in enumerate(segment.split(mark)):
            pieces += [mark] if number else []
            pieces += [piece] if piece else []
    return pieces


def _filled(pieces: Sequence[Segment], mark: str, answers: Sequence[str]) -> str:
    """Return the text with answers put in for the marks; "" where their numbers differ."""
    left = iter(answers)
    if sum(piece == mark for piece in pieces) != len(answers):
        return ""
    return "".join(next(left) if piece == mark else piece for piece in pieces)


def _end(chat: Chat, pieces: Sequence[Segment], place: int) -> int:
    """Return the place of the token that ends the answer at `place`, behind white space at most;
    `place` itself where there is none."""
    control = chat.tokenizer.vocabulary.control
    for at in range(place + 1, min(place + 3, len(pieces))):
        piece = pieces[at]
        if isinstance(piece, Control):
            return at if control[piece] in chat.stop_ids else place
        if piece.strip():
            break
    return place
