"""Conversations to ids: Gemma's turns, or the checkpoint's template where it says otherwise."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from griffin.foreign import shown
from griffin.text.template import (
    ChatTemplate,
    Control,
    Segment,
    TemplateError,
    TemplateRefusal,
    free_character,
)
from griffin.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
_START, _END = Control("<start_of_turn>"), Control("<end_of_turn>")
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
}

# Conversations on which a template must agree with Gemma's turns to be the same thing.
_PROBES: tuple[tuple[list[tuple[str, str]], bool], ...] = (
    ([("user", "Why?")], True),
    ([("user", "  one\n two \n"), ("assistant", " \tthree\n"), ("user", "four")], True),
    ([("user", "one"), ("assistant", "two")], False),
    ([("system", " Be brief. "), ("user", " one")], True),
)


class Chat:
    """Turn conversations into ids for one tokenizer.

    A message is {"role": "system" | "user" | "assistant", "content": str or [{"type": "text",
    "text": str}]}. Contents are encoded as text, so nothing in them becomes a control token; white
    space around them goes, as in Gemma's template. A system message comes first and joins the first
    user turn with a blank line between, unless the checkpoint's template has its own place for it.
    A system message with no user's after it becomes the user's turn; before an assistant's first
    message stands an empty one. An assistant's message at the end is how the answer begins, which
    goes on from there: its text follows the opening of the model's turn just as it is, encoded by
    itself, as a reply's ids would.

    native: whether the turns are Gemma's. stop_ids: what ends a reply, whatever
            generation_config.json says.
    Raises ValueError if the tokenizer has neither Gemma's turn tokens nor a template; TemplateError
    (a ValueError) if its template does not compile.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.stop_ids: frozenset[int] = frozenset({tokenizer.eos_id})
        turns = tokenizer.start_of_turn_id is not None and tokenizer.end_of_turn_id is not None
        if tokenizer.end_of_turn_id is not None:
            self.stop_ids |= {tokenizer.end_of_turn_id}
        self._template: ChatTemplate | None = None
        if tokenizer.chat_template is not None:
            template = ChatTemplate(
                tokenizer.chat_template, tokenizer.vocabulary.control, _variables(tokenizer)
            )
            if not (turns and self._says_the_same(template)):
                self._template = template
                self._learn_stop_id()
        elif not turns:
            raise ValueError(
                f"{tokenizer.path}: has no <start_of_turn> and <end_of_turn> and no chat template;"
                " it is no chat model: give it plain text"
            )
        self.native = self._template is None

    def ids(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """Turn a conversation into ids, BOS first, exactly once.

        add_generation_prompt: end with the opening of the model's turn, and with how the answer
                               begins if the last message says that.
        Raises ValueError naming the message for an unknown role or key, contents that are not text,
        a system message that is not the first, roles that do not alternate.
        """
        checked, begun = checked_messages(messages), []
        if add_generation_prompt:
            checked, begun = self._parted(checked)
        segments = self.segments(checked, add_generation_prompt)
        return [self.tokenizer.bos_id, *self.segment_ids(segments), *begun]

    def text(self, messages: Sequence[Message]) -> str:
        """Write what `ids` reads as one text, without BOS, control tokens by their names: for
        programs that know texts alone. Raises ValueError as `ids` does."""
        checked, answer = checked_messages(messages), ""
        if checked[-1][0] == "assistant":
            *checked, (_, answer) = checked
        return "".join(self.segments(checked, True)) + answer

    def begun(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of the answer that a conversation ends with, to be gone on with; none if
        it does not. They are the last of `ids(messages)`."""
        return self._parted(checked_messages(messages))[1]

    def turn_ids(self, message: Message, first: bool = False, closed: bool = False) -> list[int]:
        """Turn one new user message into the ids that continue a conversation.

        They end with the opening of the model's turn. `ids(past)`, the reply's ids and
        `turn_ids(new)` in a row are the ids of the whole conversation.

        first:  nothing was read yet; BOS comes first. Otherwise the model's reply was read last,
                and the ids begin by closing its turn.
        closed: its last token was the one that ends a turn, already read.
        Raises ValueError as `ids` does, or if the message is not the user's.
        """
        checked = checked_messages([message], whole=False)
        if first:
            return [self.tokenizer.bos_id, *self.segment_ids(self.segments(checked, True))]
        reply = free_character([checked[0][1]])
        segments = self.segments([("user", "."), ("assistant", reply), *checked], True)
        places = [index for index, segment in enumerate(segments) if reply in segment]
        if len(places) != 1 or segments[places[0]].count(reply) != 1:
            raise TemplateError(
                "the checkpoint's chat template rewrites earlier replies; send whole conversations"
            )
        tail = [segments[places[0]].partition(reply)[2], *segments[places[0] + 1 :]]
        ids = self.segment_ids([segment for segment in tail if segment])
        return ids[1:] if closed and ids[0] in self.stop_ids else ids

    def exchanges(self, messages: Sequence[Message]) -> list[list[int]]:
        """Turn a conversation into ids, parted after each reply: joined, they are `ids(messages)`.

        Each part ends with the token that ends its reply; the last one as `ids(messages)` does.
        Only one part comes back where the template does not show where replies end.
        """
        checked, begun = self._parted(checked_messages(messages))
        segments = self.segments(checked, True)
        control = self.tokenizer.vocabulary.control
        ends = [
            place
            for place, segment in enumerate(segments)
            if isinstance(segment, Control) and control[segment] in self.stop_ids
        ]
        if len(ends) not in (len(checked), len(checked) - (checked[0][0] == "system")):
            return [self.ids(messages)]
        # From the end: the user's last message, the reply before it, and so on.
        replies = sum(role == "assistant" for role, _ in checked)
        after = [place + 1 for place in ends[-2::-2][:replies]]
        cuts = [0, *reversed(after), len(segments)]
        parts = [self.segment_ids(segments[start:stop]) for start, stop in pairwise(cuts)]
        parts[-1] += begun
        return [[self.tokenizer.bos_id, *parts[0]], *parts[1:]]

    def closed(self, ids: Sequence[int]) -> list[int]:
        """Return a reply's ids, ended by the token that ends a turn, whichever of the tokens that
        end an answer the model chose. One that was cut short stays as it is."""
        end = self.end_of_turn
        return [*ids[:-1], end] if ids and ids[-1] == self.tokenizer.eos_id and end else list(ids)

    @cached_property
    def end_of_turn(self) -> int | None:
        """The token that ends a turn; None where the template ends turns with text alone."""
        first = self.turn_ids({"role": "user", "content": "."})[0]
        return first if first in self.stop_ids else None

    def opening_ids(self, closed: bool = False) -> list[int]:
        """Return what opens another turn of the model's, without a message between.

        closed: as `turn_ids` has it. ValueError where the template has no place for that.
        """
        if not self.native:
            raise ValueError(
                "the checkpoint's chat template has no place for two answers in a row; put a user's"
                " message between them"
            )
        ids = self.turn_ids({"role": "user", "content": "."}, closed=closed)
        start = self.tokenizer.start_of_turn_id
        places = [place for place, i in enumerate(ids) if i == start]
        return ids[: places[0]] + ids[places[-1] :]

    def reply_ids(self, reply: str) -> list[int]:
        """Turn a whole reply, known as text, into the ids that follow the opening of its turn."""
        ids = self.tokenizer.encode(reply.strip(), bos=False)
        return ids if self.end_of_turn is None else [*ids, self.end_of_turn]

    def _parted(self, checked: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[int]]:
        """Part a conversation from the beginning of the answer to it, in ids."""
        *before, (role, content) = checked
        if role != "assistant":
            return checked, []
        return before, self.tokenizer.encode(content, bos=False)

    def segments(
        self, messages: list[tuple[str, str]], add_generation_prompt: bool
    ) -> list[Segment]:
        """Render checked messages: control tokens and text in order, without BOS."""
        if self._template is None:
            return _gemma(messages, add_generation_prompt)
        try:
            segments = self._template.segments(messages, add_generation_prompt)
        except TemplateRefusal:
            if messages[0][0] != "system":
                raise
            segments = self._template.segments(_folded(messages), add_generation_prompt)
        return _without_bos(segments, self._bos_name)

    def segment_ids(self, segments: Sequence[Segment]) -> list[int]:
        """Turn rendered segments into ids; text is encoded as text."""
        ids: list[int] = []
        for segment in segments:
            if isinstance(segment, Control):
                ids.append(self.tokenizer.vocabulary.control[segment])
            else:
                ids += self.tokenizer.encode(segment, bos=False)
        return ids

    def _says_the_same(self, template: ChatTemplate) -> bool:
        for messages, add_generation_prompt in _PROBES:
            try:
                theirs = template.segments(messages, add_generation_prompt)
            except TemplateError:
                # Refusing a system message is Gemma's own answer to one; we fold it instead.
                if messages[0][0] == "system":
                    continue
                return False
            if "".join(_without_bos(theirs, self._bos_name)) != "".join(
                _gemma(messages, add_generation_prompt)
            ):
                return False
        return True

    def _learn_stop_id(self) -> None:
        """Find the control token that the template writes after a reply, such as ChatML's
        <|im_end|>."""
        reply = free_character([])
        assert self._template is not None
        try:
            segments = self._template.segments([("user", "."), ("assistant", reply)], False)
        except TemplateError:
            return  # it takes no reply at the end; eos and <end_of_turn> remain
        place = next(
            (index for index, segment in enumerate(segments) if reply in segment), len(segments)
        )
        after = segments[place + 1 : place + 2]
        if (
            after
            and isinstance(after[0], Control)
            and not segments[place].partition(reply)[2].strip()
        ):
            self.stop_ids |= {self.tokenizer.vocabulary.control[after[0]]}

    @property
    def _bos_name(self) -> str:
        return _name(self.tokenizer, self.tokenizer.bos_id)


def _gemma(messages: list[tuple[str, str]], add_generation_prompt: bool) -> list[Segment]:
    segments: list[Segment] = []
    for role, content in _folded(messages):
        name = "model" if role == "assistant" else role
        segments += [_START, f"{name}\n{content.strip()}", _END, "\n"]
    return [*segments, _START, "model\n"] if add_generation_prompt else segments


def _folded(messages: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if messages[0][0] != "system":
        return messages
    (_, system), (_, user), *rest = messages
    return [("user", f"{system.strip()}\n\n{user.strip()}"), *rest]


def _without_bos(segments: list[Segment], bos: str) -> list[Segment]:
    first = 0
    while first < len(segments) and isinstance(segments[first], Control) and segments[first] == bos:
        first += 1
    return segments[first:]


def _variables(tokenizer: Tokenizer) -> dict[str, str]:
    ids = {
        "bos": tokenizer.bos_id,
        "eos": tokenizer.eos_id,
        "pad": tokenizer.pad_id,
        "unk": tokenizer.unk_id,
    }
    names = {role: _name(tokenizer, id) for role, id in ids.items() if id is not None}
    return {f"{role}_token": name for role, name in (tokenizer.names | names).items()}


def _name(tokenizer: Tokenizer, id: int) -> str:
    name = tokenizer.vocabulary.pieces[id]
    assert name is not None, "a special id is found by its name"
    return name


def checked_messages(messages: Sequence[Message], whole: bool = True) -> list[tuple[str, str]]:
    """Return (role, content) pairs: a system message only first, then user and assistant in turn.

    whole: they are a whole conversation, which begins with the user's turn whoever speaks first.
    """
    if not isinstance(messages, Iterable) or isinstance(messages, (str, Mapping)):
        raise ValueError(f"a conversation is a list of messages, got one {type(messages).__name__}")
    checked: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise ValueError(
                f"{where} must be an object with role and content, got {type(message).__name__}"
            )
        if unknown := sorted(set(map(str, message)) - {"role", "content", "name"}):
            raise ValueError(f"{where} has {', '.join(unknown)}; a message has role and content")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise ValueError(f"{where} has role {shown(role)}; allowed are {', '.join(_ROLES)}")
        role = _ROLES[role]
        if role == "system" and number:
            raise ValueError(f"{where} is a system message; only the first message may be one")
        begun = any(past != "system" for past, _ in checked)
        if role == "assistant" and not begun and whole:
            checked = [("user", checked[0][1] if checked else "")]
        turns = [past for past, _ in checked if past != "system"]
        due = "assistant" if turns and turns[-1] == "user" else "user"
        if role not in ("system", due):
            raise ValueError(
                f"{where} has role {role}, but it is the {due}'s turn: user and assistant alternate"
            )
        checked.append((role, _content(message.get("content"), where)))
    if checked and checked[-1][0] == "system" and whole:
        checked = [("user", checked[0][1])]
    if not checked or checked[-1][0] == "system":
        raise ValueError(
            "a conversation needs a user message" + (" after the system message" if checked else "")
        )
    return checked


def _content(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ValueError(
            f"{where} has content of type {type(content).__name__}; give a string or a list of"
            " parts"
        )
    texts: list[str] = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(text, str):
            raise ValueError(
                f'{where} part {number} is of type {kind!r}; this model reads {{"type": "text",'
                ' "text": ...}'
            )
        texts.append(text)
    return "".join(texts)
