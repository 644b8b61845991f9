"""A text that is asked about: read once, in constant memory, and forked for each question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, Protocol

from griffin.answer import Piece, Result, Stream
from griffin.engine import Context
from griffin.text.pieces import Cutter

if TYPE_CHECKING:
    from griffin.grammar import Grammar
    from griffin.text import Chat, Tokenizer

_LEAST = 1 << 12  # characters that are held before a part of them is read
_MOST = 1 << 17  # without a safe cut in this many characters, the text is cut all the same
_ROLE = "user\n"  # what Gemma's format writes before a user's text, in the same run of text


class _LLM(Protocol):
    """What a document needs of an LLM; LLM makes documents, so this file does not know it."""

    name: str
    tokenizer: Tokenizer

    @property
    def talks(self) -> bool: ...

    @cached_property
    def chat_format(self) -> Chat: ...

    def read(
        self,
        pieces: Iterable[Sequence[int]],
        context: Context | None = None,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> Context: ...

    def stream(
        self, prompt: Context, *, grammar: Grammar | None = None, **sampling: Any
    ) -> Stream: ...

    def stream_all(
        self, prompts: Sequence[Context], *, grammar: Grammar | None = None, **sampling: Any
    ) -> Iterator[tuple[int, Piece, Result | None]]: ...


class Document:
    """A text of any length, read once, and the answers to questions about what came so far.

    `llm.document(text)` makes one. Each question is answered on a fork, so the document stays as it
    is: it can be asked again, and more text may follow.

    llm:      who reads it.
    chat:     put text and question into one user's turn; otherwise the question follows the text as
              plain text. If omitted, a turn for chat models: those that bring a chat template or
              are called ...-it, as all released ones are.
    hold:     hold the text where the checkpoint's own chat template leaves no other way; False for
              a text without end.
    progress: is called with the tokens read in all, now and then while text is read.

    The prompt of a question is the text, a blank line and the question, with the ids of the whole:
    what is read ahead ends where no token can span the place (griffin.text.pieces), and the rest,
    usually a hundred characters, is read again for every round of questions. White space at both
    ends of the text is removed. Raises ValueError if `chat` is asked of a model that knows no
    turns, or of one whose own template needs the whole text while `hold` is False.

    hard_cuts: places where a text had to be cut without that proof.
    shared:    tokens that the questions asked last have in common, read once for all of them.
    """

    def __init__(
        self,
        llm: _LLM,
        *,
        chat: bool | None = None,
        hold: bool = True,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        if chat is None:
            chat = llm.talks
        self.chat = chat
        self.hard_cuts = 0
        self.shared = 0
        self._llm = llm
        self._progress = progress
        self._chat = llm.chat_format if chat else None
        self._whole = self._chat is not None and not self._chat.native
        if self._whole and not hold:
            raise ValueError(
                f"{llm.name} has a chat template of its own, which has no place for a text without"
                " end; give --raw (chat=False) and write the question so that the answer is what"
                " comes next"
            )
        self._context: Context | None = None
        self._held = ""  # text that came and was not read
        self._wanted = _LEAST
        self._cutter: Cutter | None = None
        self._opening: list[int] = [llm.tokenizer.bos_id]  # ids, until they are read
        self._closing: list[int] = []
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

    def read(self, text: str | Iterable[str]) -> None:
        """Take more text, a string or blocks of any size, such as the lines of an open file.

        Most of it is read at once, the end is held until it is clear what comes after it. Raises
        ValueError for what is no text.
        """
        if isinstance(text, bytes | bytearray) or not isinstance(text, Iterable):
            raise ValueError(_no_text(text))
        self._feed(self._pieces((text,) if isinstance(text, str) else text))

    def settle(self) -> None:
        """Read all that can be read whatever comes next."""
        place = self._place()
        if place is not None:
            self._feed(iter([self._take(place)]))

    def ask(self, question: str, *, grammar: Grammar | None = None, **sampling: Any) -> Result:
        """Answer a question about the text so far.

        `sampling` and `grammar` are those of `LLM.generate`. Raises ValueError if there is no text,
        or the question is empty.
        """
        return self.ask_all([question], grammar=grammar, **sampling)[0]

    def ask_all(
        self, questions: Sequence[str], *, grammar: Grammar | None = None, **sampling: Any
    ) -> list[Result]:
        """Answer several questions together, each as if it had been asked alone."""
        pieces = self.stream_all(questions, grammar=grammar, **sampling)
        results = {which: result for which, _, result in pieces if result is not None}
        return [results[which] for which in range(len(questions))]

    def stream(self, question: str, *, grammar: Grammar | None = None, **sampling: Any) -> Stream:
        """Answer a question and give each piece of text as soon as it is final."""
        (prompt,) = self.prompts([question])
        return self._llm.stream(prompt, grammar=grammar, **self._sampling(sampling))

    def stream_all(
        self, questions: Sequence[str], *, grammar: Grammar | None = None, **sampling: Any
    ) -> Iterator[tuple[int, Piece, Result | None]]:
        """Answer several questions together and give the pieces of all answers as they come.

        Yields what `LLM.stream_all` does. What the questions share is read when this returns.
        """
        prompts = self.prompts(questions)
        return self._llm.stream_all(prompts, grammar=grammar, **self._sampling(sampling))

    def prompts(self, questions: Sequence[str]) -> list[Context]:
        """Return a prompt for each question, forked from the text so far.

        What they share is read when this returns, the rest is pending. Raises ValueError if there
        is no text, or a question is empty.
        """
        if self.empty:
            raise ValueError(
                "there is no text to ask about: it is empty, or nothing but white space"
            )
        if isinstance(questions, str):
            raise ValueError("several questions are a list of strings; `ask` takes a single one")
        if not isinstance(questions, Iterable):
            raise ValueError(f"several questions are a list of strings, not {questions!r:.80}")
        for number, question in enumerate(questions, 1):
            if not isinstance(question, str):
                raise ValueError(f"question {number} must be a string, not {question!r:.80}")
            if not question.strip():
                raise ValueError(f"question {number} is empty; write what you want to know")
        self.settle()
        ids = [self._ids(question) for question in questions]
        shared = _common([*ids, self._ids("")])
        fork = self._context
        if shared or fork is None:  # all begin with BOS: where nothing was read, it is shared
            fork = self._llm.read([shared], fork, progress=self._told())
        self.shared = fork.read
        return [fork.then(own[len(shared) :]) for own in ids]

    def _sampling(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return sampling fields with the ids that end a turn among those that end an answer."""
        turns = self._chat.stop_ids if self._chat is not None else frozenset[int]()
        return fields | {"stop_ids": sorted(turns.union(fields.get("stop_ids", ())))}

    def _ids(self, question: str) -> list[int]:
        """Return the ids of what has not been read, and of a question after it."""
        if self._chat is not None:
            question = question.strip()
        text = f"{self._held.rstrip()}\n\n{question}"
        if self._whole:
            assert self._chat is not None
            return self._chat.ids([{"role": "user", "content": text}])
        return [*self._opening, *self._llm.tokenizer.encode(text, bos=False), *self._closing]

    def _feed(self, pieces: Iterator[list[int]]) -> None:
        first = next(pieces, None)
        if first is not None:
            self._context = self._llm.read(
                chain((first,), pieces), self._context, progress=self._told()
            )

    def _told(self) -> Callable[[int], object] | None:
        """Return `progress` for a reading that begins here and counts from 0."""
        if self._progress is None:
            return None
        progress = self._progress
        before = 0 if self._context is None else self._context.read
        return lambda count: progress(before + count)

    def _pieces(self, blocks: Iterable[str]) -> Iterator[list[int]]:
        """Give the ids of what can be read now; the rest of the blocks is held."""
        begun = not self.empty
        for block in blocks:
            if not isinstance(block, str):
                raise ValueError(_no_text(block))
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
        """Return where the held text can be cut: not in white space that may be its end."""
        if self._whole:
            return None
        if self._cutter is None:
            self._cutter = Cutter(self._llm.tokenizer)
        return self._cutter.cut(self._held.rstrip())

    def _take(self, place: int) -> list[int]:
        """Return the ids of the held text up to a place, which is held no longer."""
        text, self._held, self._wanted = self._held[:place], self._held[place:], _LEAST
        opening, self._opening = self._opening, []
        return [*opening, *self._llm.tokenizer.encode(text, bos=False)]


def _no_text(given: object) -> str:
    decode = "; decode them first" if isinstance(given, bytes | bytearray) else ""
    return (
        "a document is a string, or blocks of text such as an open file or a list of strings, not"
        f" {given!r:.80}{decode}"
    )


def _common(lists: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest beginning that all lists have."""
    return [
        column[0]
        for column in takewhile(lambda column: len(set(column)) == 1, zip(*lists, strict=False))
    ]
