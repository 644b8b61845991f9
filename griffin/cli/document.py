"""A text that is asked about: read once, in constant memory, every question on a fork of what was
read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from griffin.engine import Context
    from griffin.llm import LLM
    from griffin.text.pieces import Cutter

_LEAST = 1 << 12  # characters that are held before a part of them is read
_MOST = 1 << 17  # without a safe cut in this many characters, the text is cut all the same
_ROLE = "user\n"  # what Gemma's format writes before a user's text, in the same run of text
_GARBAGE = 0.1  # a text with more than this share of bytes that are no UTF-8 is none


class Document:
    """A text on its way into the model, of any length, and the prompts that ask about what came so
    far.

    llm:   who reads it.
    chat:  put text and question into one user's turn; otherwise the question follows the text as
           plain text.
    whole: hold the text where the checkpoint's own chat template leaves no other way.

    The prompt of a question is the text, a blank line and the question, with the ids of the whole:
    what is read ahead ends where no token can span the place (griffin.text.pieces), and the rest,
    usually a hundred characters, is read again for every round of questions. White space at both
    ends of the text goes. Raises ValueError if `chat` is asked of a model that knows no turns, or
    that has turns of its own and the text must not be held.

    hard_cuts: places where a text had to be cut without that proof.
    """

    def __init__(self, llm: LLM, *, chat: bool, whole: bool = True) -> None:
        self.hard_cuts = 0
        self._llm = llm
        self._chat = llm.chat_format if chat else None
        self._whole = self._chat is not None and not self._chat.native
        if self._whole and not whole:
            raise ValueError(
                f"{llm.name} has a chat template of its own, which has no place for a text without"
                " end; give --raw and write the question so that the answer is what comes next"
            )
        self._context: Context | None = None
        self._held = ""  # text that came and was not read
        self._wanted = _LEAST
        self._cutter: Cutter | None = None
        self._opening, self._closing = (
            [llm.tokenizer.bos_id],
            [],
        )  # ids; the opening until it is read
        if self._chat is not None and not self._whole:
            # The frame of a turn: what the ids of one are before and after its text.
            turn = self._chat.ids([{"role": "user", "content": "."}])
            start, end = llm.tokenizer.start_of_turn_id, llm.tokenizer.end_of_turn_id
            assert start is not None and end is not None, "native turns have both"
            self._opening = turn[: turn.index(start) + 1]
            self._closing = turn[turn.index(end) :]

    @property
    def empty(self) -> bool:
        """Whether nothing but white space came so far."""
        return self._context is None and not self._held

    @property
    def tokens(self) -> int:
        """How many tokens were read ahead."""
        return 0 if self._context is None else self._context.tokens

    def count(self) -> int:
        """Return how many tokens the text has so far, those included that are held."""
        if self.empty:
            return 0
        return (
            self.tokens
            + len(self._opening)
            + len(self._llm.tokenizer.encode(self._held, bos=False))
        )

    def sampling(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return sampling fields with the ids that end a turn among those that end an answer."""
        turns = self._chat.stop_ids if self._chat is not None else frozenset[int]()
        return fields | {"stop_ids": sorted(turns.union(fields.get("stop_ids", ())))}

    def read(self, blocks: Iterable[str], progress: Callable[[int], object] | None = None) -> None:
        """Take text in blocks of any size; most of it is read at once, the end is held.

        progress is called with the tokens read in all, now and then.
        """
        self._feed(self._pieces(blocks), progress)

    def settle(self) -> None:
        """Read all that can be read whatever comes next."""
        place = self._place()
        if place is not None:
            self._feed(iter([self._take(place)]))

    def prompts(
        self, questions: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> tuple[list[Context], int]:
        """Return a prompt for each question, forked from the text so far, and the tokens they
        share.

        The shared ones are read when this returns, the rest is pending. The document stays as it
        is: more text may follow. Raises ValueError if there is no text, or a question is empty.
        """
        if self.empty:
            raise ValueError(
                "there is no text to ask about: it is empty, or nothing but white space"
            )
        for number, question in enumerate(questions, 1):
            if not question.strip():
                raise ValueError(f"question {number} is empty; write what you want to know")
        self.settle()
        ids = [self._ids(question) for question in questions]
        shared = _common([*ids, self._ids("")])
        fork = self._context
        if (
            shared or fork is None
        ):  # nothing is shared only where something was read: all begin with BOS
            fork = self._llm.read([shared], fork, progress=_offset(progress, self.tokens))
        return [fork.then(own[len(shared) :]) for own in ids], fork.tokens - 1

    def _ids(self, question: str) -> list[int]:
        """Return the ids of what has not been read, and of a question after it."""
        if self._chat is not None:
            question = question.strip()
        text = f"{self._held.rstrip()}\n\n{question}"
        if self._whole:
            assert self._chat is not None
            return self._chat.ids([{"role": "user", "content": text}])
        return [*self._opening, *self._llm.tokenizer.encode(text, bos=False), *self._closing]

    def _feed(
        self, pieces: Iterator[list[int]], progress: Callable[[int], object] | None = None
    ) -> None:
        first = next(pieces, None)
        if first is not None:
            whole = chain((first,), pieces)
            self._context = self._llm.read(
                whole, self._context, progress=_offset(progress, self.tokens)
            )

    def _pieces(self, blocks: Iterable[str]) -> Iterator[list[int]]:
        """Give the ids of what can be read; the rest is held when the blocks are at their end."""
        begun = not self.empty
        for block in blocks:
            if not begun:
                block = block.lstrip()
                begun = bool(block)
                self._held = _ROLE if begun and self._closing else ""
            self._held += block
            while len(self._held) >= self._wanted and not self._whole:
                place = self._place()
                if place is None and len(self._held) < _MOST:
                    self._wanted = min(2 * len(self._held), _MOST)
                    break
                if place is None:
                    self.hard_cuts += 1
                    place = self._held.rfind("\n", 1) + 1 or len(self._held)
                yield self._take(place)

    def _place(self) -> int | None:
        """Return where the held text can be cut: never in white space that may turn out to be its
        end."""
        if self._whole:
            return None
        if self._cutter is None:
            from griffin.text.pieces import Cutter

            self._cutter = Cutter(self._llm.tokenizer)
        return self._cutter.cut(self._held.rstrip())

    def _take(self, place: int) -> list[int]:
        """Return the ids of the held text up to a place, which is held no longer."""
        text, self._held, self._wanted = self._held[:place], self._held[place:], _LEAST
        opening, self._opening = self._opening, []
        return [*opening, *self._llm.tokenizer.encode(text, bos=False)]


def wants_turns(llm: LLM, chat: bool | None) -> bool:
    """Return whether text and question go into a turn, where the command line does not say: for
    chat models.

    They are those that bring a chat template or are called so, as all released ones are.
    """
    return (
        llm.tokenizer.chat_template is not None or llm.name.endswith("-it")
        if chat is None
        else chat
    )


class TextOnly:
    """A stream of bytes whose first block has to look like text: ValueError, with `name`, if it
    does not."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name: str | None = name

    def read(self, size: int = -1) -> bytes:
        return self._checked(self._stream.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._checked(self._stream.readline(size))

    def _checked(self, block: bytes) -> bytes:
        if self._name is not None and block:
            place = block.find(b"\0")
            if place >= 0:
                raise ValueError(
                    f"{self._name} is no text: byte {place} is 0 (if it is UTF-16, convert it to"
                    " UTF-8)"
                )
            bad = block.decode("utf-8", errors="replace").count("\ufffd") - block.count(
                b"\xef\xbf\xbd"
            )
            if bad > max(3, _GARBAGE * len(block)):
                raise ValueError(
                    f"{self._name} is no UTF-8 text: {bad:,} of its first {len(block):,} bytes"
                )
            self._name = None
        return block


def _common(lists: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest beginning that all lists have."""
    return [
        column[0]
        for column in takewhile(lambda column: len(set(column)) == 1, zip(*lists, strict=False))
    ]


def _offset(
    progress: Callable[[int], object] | None, before: int
) -> Callable[[int], object] | None:
    return None if progress is None else lambda count: progress(before + count)
