"""A chat: messages are answered, each answer is kept as a turn, and one can go back and
elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from griffin.answer import Result
from griffin.conversation.exchange import EXCHANGE, join_exchange, split_exchange
from griffin.conversation.fingerprint import fingerprint_of
from griffin.engine import Context
from griffin.llm import LLM
from griffin.model import State
from griffin.sessions import Session, SessionError, Store, Turn
from griffin.sessions.state_info import info_of


class Conversation:
    """A chat of one model on a session, on a disk or in memory.

    thread:             where finished turns go. A turn is a message and its answer together
                        (`EXCHANGE`): a process that dies in the middle of an answer leaves the
                        conversation at the last one.
    sampling:           fields of SamplingParams that hold for this program run; they win over those
                        the session was told by `set`.
    max_message_tokens: the most a message may have, with what was attached; None for no limit.

    context:  where the next message goes on. result: the last answer's numbers, None before.
    resume_seconds: what it took to get there.
    attached: text that goes before the next message.
    trouble:  why the conversation goes on in memory, once it does; "" otherwise.
    Raises ValueError if the model knows no turns, or the session's settings are none of this
    program's.
    """

    def __init__(
        self,
        llm: LLM,
        thread: Session,
        *,
        sampling: dict[str, Any] | None = None,
        max_message_tokens: int | None = None,
    ) -> None:
        self.llm = llm
        self.max_message_tokens = max_message_tokens
        self.result: Result | None = None
        self.attached = ""
        self.trouble = ""
        self._chat = llm.chat_format
        self._given = dict(sampling or {})
        self.switch(thread)

    # Where it stands.

    @property
    def kept(self) -> bool:
        """Whether finished turns go to the disk."""
        return self.thread.durable

    @property
    def name(self) -> str:
        """The session's name; "" in memory."""
        return self.thread.name if self.kept else ""

    @property
    def system(self) -> str | None:
        """The text that the first turn begins with."""
        return self.thread.settings.get("system")

    @property
    def sampling(self) -> dict[str, Any]:
        """What was given and set, the latter last."""
        return {**self._saved, **self._given, **self._set}

    @property
    def tokens(self) -> int:
        return self.thread.tokens

    def switch(self, thread: Session) -> Context:
        """Go on with another thread; the one before is closed. If it cannot be read, nothing
        changes."""
        saved = dict(thread.settings.get("sampling", {}))
        saved = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()}
        self.llm.params(**saved | self._given)
        context, seconds = _resume(thread)
        if hasattr(self, "thread"):
            self.thread.close()
        self.thread = thread
        self.trouble = ""
        self._saved, self._set = saved, dict[str, Any]()
        return self._stand_at(context, seconds)

    def resume(self) -> Context:
        """Take the state after the thread's head up again. Raises StateTorn if it is not what was
        kept."""
        return self._stand_at(*_resume(self.thread))

    # Talking.

    def say(self, message: str) -> Generator[str, None, None]:
        """Answer a message piece by piece, and keep both when the answer is over.

        What was said when the caller stops listening stays said. An answer that is stopped before
        its first token, or torn by an exception, leaves the conversation as it was. Raises
        ValueError for a message that is too long. If the turn cannot be written, the conversation
        goes on in memory and `trouble` says why; nothing is lost.
        """
        whole = f"{self.attached}\n\n{message}" if self.attached else message
        ids = self._turn_ids(whole)
        prompt = self.context.then(ids)
        stops = sorted(self._chat.stop_ids | set(self.sampling.get("stop_ids", ())))
        fields: dict[str, Any] = self.sampling | {"stop_ids": stops}
        stream = self.llm.stream(prompt, **fields)
        with suppress(GeneratorExit):
            for piece in stream:
                yield piece.text
        # Not reached if a step was torn by an exception: then there is no state to go on from.
        stream.close()
        self.result = stream.result
        if self.result.ids:
            self._keep(whole, ids, stream.result, self._closed(stream.context))
            self.attached = ""

    def regenerate(self) -> Generator[str, None, None]:
        """Answer the last message anew, on a branch of its own; ValueError if there is none."""
        head = self.thread.head
        if head is None or head.role != EXCHANGE or head.text is None:
            raise ValueError("there is no answer to make anew; say something first")
        message, _ = split_exchange(head.text)
        attached, self.attached = self.attached, ""
        undone: Context | None = None
        try:
            self.undo()
            undone = self.context
            yield from self.say(message)
        finally:
            self.attached = attached
            if self.context is undone:  # nothing came; the old answer stays
                self.redo()

    def attach(self, text: str) -> int:
        """Put a text before the next message; return how many tokens it has. ValueError if too
        many."""
        whole = f"{self.attached}\n\n{text}" if self.attached else text
        self._check_length(len(ids := self.llm.tokenizer.encode(whole, bos=False)))
        self.attached = whole
        return len(ids)

    # Going elsewhere.

    def undo(self, turns: int = 1) -> Turn | None:
        """Go back so many turns; `redo` goes forward. UnknownTurn if there are not so many."""
        return self._move(lambda: self.thread.undo(turns))

    def redo(self, turns: int = 1) -> Turn | None:
        """Go forward again."""
        return self._move(lambda: self.thread.redo(turns))

    def goto(self, number: int) -> Turn | None:
        """Go to a turn of any branch; 0 is before the first."""
        return self._move(lambda: self.thread.goto(number or None))

    def clear(self) -> None:
        """Begin again, after the state file if there was one; what was said stays a branch."""
        self.attached = ""
        first = next(iter(self.thread.turns()), None)
        self.goto(first.number if first is not None and first.role == "state" else 0)

    def fork(self, store: Store, name: str | None = None) -> Context:
        """Go on in a new session that begins with what was said here; the old one stays where it
        is."""
        if not self.kept:
            self.save(store, name)
            return self.context
        name = self.thread.fork(name)
        return self.switch(store.open(name, self.thread.fingerprint))

    def save(self, store: Store, name: str | None = None) -> str:
        """Keep the conversation under a name and return it.

        A session gets a twin of that name and goes on as itself; a conversation in memory becomes
        the session, with all that was said.
        """
        if self.kept:
            return self.thread.fork(name)
        if self.thread.head is None:
            raise ValueError("nothing has been said yet; there is no state to keep")
        name = store.adopt(self.thread, name)
        self.switch(store.open(name, self.thread.fingerprint))
        return name

    def instruct(self, system: str | None) -> None:
        """Set the text that the first turn begins with, and begin again."""
        if system is not None:
            self._chat.ids(
                [{"role": "system", "content": system}, {"role": "user", "content": "."}]
            )
        self.thread.update(settings=self.thread.settings | {"system": system})
        self.clear()

    def set(self, name: str, value: Any) -> None:
        """Change a sampling parameter, in the session too; ValueError for an unknown name or wrong
        value."""
        self.llm.params(**self.sampling | {name: value})
        self._set[name] = value
        sampling = {**self.thread.settings.get("sampling", {}), name: value}
        self.thread.update(settings=self.thread.settings | {"sampling": sampling})

    def close(self) -> None:
        """Give the session back."""
        self.thread.close()

    # Inside.

    def _turn_ids(self, message: str) -> list[int]:
        """Return the ids that a message adds, up to the model's turn."""
        turn = {"role": "user", "content": message}
        head = self.thread.head
        if head is None or head.role == "state":
            before = [] if self.system is None else [{"role": "system", "content": self.system}]
            ids = self._chat.ids([*before, turn])
            ids = ids if head is None else ids[1:]  # a text was read: BOS stands before that
        else:
            ids = self._chat.turn_ids(turn, closed=self.context.pending[-1] in self._chat.stop_ids)
        self._check_length(len(ids))
        return ids

    def _check_length(self, count: int) -> None:
        if self.max_message_tokens is not None and count > self.max_message_tokens:
            raise ValueError(
                f"the message has {count:,} tokens; this chat takes {self.max_message_tokens:,}"
                " (raise it with --max-message-tokens, or read a long text once with `griffin"
                " state build`)"
            )

    def _closed(self, context: Context) -> Context:
        """Return the context after an answer, an EOS at its end replaced by the token that ends a
        turn.

        It has not been read yet. So a turn is ended once, whichever of the two the model chose.
        """
        if context.pending[-1] != self.llm.tokenizer.eos_id:
            return context
        end = self._chat.turn_ids({"role": "user", "content": "."})[0]
        if end not in self._chat.stop_ids:
            return context
        return replace(context, pending=(*context.pending[:-1], end))

    def _keep(self, message: str, ids: Sequence[int], result: Result, after: Context) -> None:
        thread, before = self.thread, self.context
        turn: dict[str, Any] = {
            "role": EXCHANGE,
            "ids": (*ids, *result.ids[:-1], after.pending[-1]),
            "state": _on_cpu(after.state),
            "pending": after.pending,
            "text": join_exchange(message, result.text),
            "stats": {
                "finish_reason": result.finish_reason,
                "generated_tokens": result.generated_tokens,
                "seconds": round(result.seconds, 6),
                "seed": result.seed,
            },
        }
        try:
            thread.commit(**turn)
        except (SessionError, OSError) as error:
            if not thread.durable:
                raise
            self.thread = _in_memory(thread, before)
            self.trouble = str(error)
            self.thread.commit(**turn)
            thread.close()
        except KeyboardInterrupt:
            self.resume()  # the turn may be on the disk already
            raise
        self.context = after

    def _move(self, move: Callable[[], Turn | None]) -> Turn | None:
        """Go somewhere, and back if the state there cannot be read or nobody wants to wait for
        it."""
        here = self.thread.head
        turn = move()
        try:
            self.resume()
        except (SessionError, KeyboardInterrupt):
            self.thread.goto(here.number if here else None)
            raise
        return turn

    def _stand_at(self, context: Context, seconds: float) -> Context:
        self.context, self.resume_seconds = context.to(self.llm.model.device), seconds
        return self.context


def _resume(thread: Session) -> tuple[Context, float]:
    started = time.perf_counter()
    return thread.resume(), time.perf_counter() - started


def _on_cpu(state: State | None) -> State | None:
    return state if state is None else state.map(lambda tensor: tensor.cpu())


def _in_memory(session: Session, context: Context) -> Session:
    """Return a session in memory that goes on from where another stands."""
    store, mark, config = Store.in_memory(), session.fingerprint, session.config
    if session.head is None:
        memory = store.create(fingerprint=mark, config=config, title=session.title)
    else:
        info = info_of(session.turns(), context.pending, mark, config, session.title)
        name = store.import_state(info, _on_cpu(context.state)).name
        memory = store.open(name, mark)
    memory.update(settings=session.settings)
    return memory


def new_thread(
    llm: LLM, store: Store | None, name: str | None = None, system: str | None = None
) -> Session:
    """Begin a conversation: a session of the store, or one in memory where there is none."""
    settings = {} if system is None else {"system": system}
    store = Store.in_memory() if store is None else store
    return store.create(
        name, fingerprint=fingerprint_of(llm), config=llm.model.config, settings=settings
    )
