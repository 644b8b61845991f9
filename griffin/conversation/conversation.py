"""A chat: messages are answered, answers are kept as turns, and one can go back and elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from griffin.answer import Result, Stream
from griffin.conversation import turns
from griffin.conversation.fingerprint import fingerprint_of
from griffin.conversation.turns import Place, Said
from griffin.engine import Context
from griffin.llm import LLM
from griffin.sampling import SamplingParams
from griffin.sessions import Session, SessionError, Store, Turn
from griffin.sessions.state_info import info_of


class Conversation:
    """A chat of one model in a session.

    session:            where finished turns go. A turn is a message and its answer together: a
                        process that dies in the middle of an answer leaves the conversation at the
                        last one.
    sampling:           fields of SamplingParams that hold for this program run; they win over those
                        the session was told by `set`.
    defaults:           fields where neither does; the LLM's own if omitted.
    max_message_tokens: the most a message may have, with what was attached; None for no limit.

    context:        where the session stands, on the model's device.
    resume_seconds: what it took to get there. result: the last answer's numbers, None before.
    attached:       text that goes before the next message.
    prefill:        how the next answer is to begin.
    trouble:        why the conversation goes on in memory, once it does; "" otherwise.
    progress:       is told, while a message is read, its tokens read and all of them; None: nobody.
    Raises ValueError if the model knows no turns, if `sampling` is no fields, or if the session's
    settings are none of this program's.
    """

    def __init__(
        self,
        llm: LLM,
        session: Session,
        *,
        sampling: Mapping[str, Any] | None = None,
        defaults: SamplingParams | None = None,
        max_message_tokens: int | None = None,
    ) -> None:
        self.llm = llm
        self.max_message_tokens = max_message_tokens
        self.result: Result | None = None
        self.attached = ""
        self.prefill = ""
        self.trouble = ""
        self.progress: Callable[[int, int], object] | None = None
        self._chat = llm.chat_format
        if not isinstance(sampling, Mapping | None):
            raise ValueError(
                "sampling must be a dict of fields of SamplingParams, such as"
                f" {{'temperature': 0.5}}, not {sampling!r:.80}"
            )
        self._given = dict(sampling or {})
        own = vars(defaults or llm.defaults).items()
        self._defaults = {name: v for name, v in own if v != getattr(llm.defaults, name)}
        self.switch(session)

    # Where it stands.

    @property
    def kept(self) -> bool:
        """Whether finished turns go to the disk."""
        return self.session.durable

    @property
    def name(self) -> str:
        """The session's name; "" of one in memory."""
        return self.session.name if self.kept else ""

    @property
    def system(self) -> str | None:
        """The text before the first message, as far as the session knows."""
        return self.session.settings.get("system")

    @property
    def sampling(self) -> dict[str, Any]:
        """What was given and set, the latter last."""
        return {**self._defaults, **self._saved, **self._given, **self._set}

    @property
    def tokens(self) -> int:
        return self.session.tokens

    def switch(self, session: Session) -> Context:
        """Go on with another session and close this one; if it cannot be read, nothing changes."""
        saved = dict(session.settings.get("sampling", {}))
        saved = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()}
        self.llm.params(**saved | self._given)
        context, seconds = _timed(session)
        if hasattr(self, "session"):
            self.session.close()
        self.session = session
        self.trouble = ""
        self._saved, self._set = saved, dict[str, Any]()
        return self._stand_at(context, seconds)

    def resume(self) -> Context:
        """Read the state after the session's head again; StateTorn if it is damaged."""
        return self._stand_at(*_timed(self.session))

    # Talking.

    def say(self, message: str) -> Generator[str, None, None]:
        """Answer a message piece by piece, `prefill` first, and keep both when the answer is over.

        What was said when the caller stops listening stays said. An answer that is stopped before
        its first token, or torn by an exception, leaves the conversation as it was. Raises
        ValueError for a message that is too long. If the turn cannot be written, the conversation
        goes on in memory and `trouble` says why; nothing is lost.
        """
        whole = f"{self.attached}\n\n{message}" if self.attached else message
        begun: list[Said] = [("assistant", self.prefill)] if self.prefill else []
        yield from self._answer([("user", whole), *begun])

    def go_on(self) -> Generator[str, None, None]:
        """Go on with an answer that was cut short, as `say` answers; ValueError if it was not."""
        yield from self._answer([])

    def regenerate(self) -> Generator[str, None, None]:
        """Answer the last message anew, on a branch of its own; ValueError if there is none."""
        back = 1
        for turn in reversed(self.session.turns()):
            if turn.role == turns.EXCHANGE and turn.text is not None:
                break
            if turn.role != turns.CONTINUATION:
                raise ValueError("there is no answer to make anew; say something first")
            back += 1
        else:
            raise ValueError("there is no answer to make anew; say something first")
        message, _ = turns.split_exchange(turn.text)
        attached, self.attached = self.attached, ""
        prefill, self.prefill = self.prefill, ""
        undone: Context | None = None
        try:
            self.undo(back)
            undone = self.context
            yield from self.say(message)
        finally:
            self.attached, self.prefill = attached, prefill
            if self.context is undone:  # nothing came; the old answer stays
                self.redo(back)

    def attach(self, text: str) -> int:
        """Put a text before the next message; return its tokens. ValueError for too many."""
        whole = f"{self.attached}\n\n{text}" if self.attached else text
        self._check_length(len(ids := self.llm.tokenizer.encode(whole, bos=False)))
        self.attached = whole
        return len(ids)

    # Going elsewhere.

    def undo(self, turns: int = 1) -> Turn | None:
        """Go back so many turns; `redo` goes forward. UnknownTurn if there are not so many."""
        return self._move(lambda: self.session.undo(turns))

    def redo(self, turns: int = 1) -> Turn | None:
        """Go forward again."""
        return self._move(lambda: self.session.redo(turns))

    def goto(self, number: int) -> Turn | None:
        """Go to a turn of any branch; 0 is before the first."""
        return self._move(lambda: self.session.goto(number or None))

    def clear(self) -> None:
        """Begin anew, after the text that was read, if any; what was said stays a branch."""
        self.attached = self.prefill = ""
        self.goto(turns.base_of(self.session.tree(), self.session.turns()) or 0)

    def fork(self, store: Store, name: str | None = None) -> Context:
        """Go on in a new session that begins with what was said; the old one stays as it is."""
        name = self.session.fork(name) if self.kept else store.adopt(self.session, name)
        return self.switch(store.open(name, self.session.fingerprint))

    def save(self, store: Store, name: str | None = None) -> str:
        """Keep the conversation under a name and return it.

        A session gets a twin of that name and goes on as itself; a conversation in memory becomes
        the session.
        """
        if self.kept:
            return self.session.fork(name)
        if self.session.head is None:
            raise ValueError("nothing has been said yet; there is nothing to keep")
        self.fork(store, name)
        return self.session.name

    def instruct(self, system: str | None) -> None:
        """Change the text before the first message; what was said is read again under it.

        That is done before the next answer. ValueError for a text that the template refuses.
        """
        if system is not None:
            self._chat.ids(
                [{"role": "system", "content": system}, {"role": "user", "content": "."}]
            )
        self.session.update(settings=self.session.settings | {"system": system})

    def set(self, name: str, value: Any) -> None:
        """Change a sampling parameter, in the session too; ValueError for a wrong one."""
        self.llm.params(**self.sampling | {name: value})
        self._set[name] = value
        self._keep_sampling({**self.session.settings.get("sampling", {}), name: value})

    def unset(self, name: str) -> None:
        """Go back to the model's own value of a sampling parameter; ValueError for a wrong name."""
        self.llm.params(**{name: getattr(self.llm.defaults, name, None)})
        for given in (self._saved, self._given, self._set):
            given.pop(name, None)
        saved = self.session.settings.get("sampling", {})
        self._keep_sampling({key: value for key, value in saved.items() if key != name})

    def close(self) -> None:
        """Give the session back."""
        self.session.close()

    # Inside.

    def _keep_sampling(self, sampling: dict[str, Any]) -> None:
        self.session.update(settings=self.session.settings | {"sampling": sampling})

    def _answer(self, talk: Sequence[Said]) -> Generator[str, None, None]:
        here, place = _number(self.session), self._place(talk)
        self._check_length(len(place.rest.ids))
        try:
            before = self.context
            if place.turn != here:  # other words stand before the conversation now
                self.session.goto(place.turn, keep=False)
                before = self.session.resume().to(self.llm.model.device)
            context = before.then(place.rest.all_ids)
            stream = self.llm.stream(context, chat=True, progress=self.progress, **self.sampling)
            begun = place.rest.begun
            with suppress(GeneratorExit):
                for piece in stream:
                    yield begun + piece.text
                    begun = ""
            # Not reached if a step was torn by an exception: there is no state to go on from.
            stream.close()
            self.result = stream.result
            if stream.result.ids:
                self._keep(place, stream, before)
                self.attached = self.prefill = ""
        finally:
            if here != place.turn == _number(self.session):  # nothing came
                self.session.goto(here, keep=False)

    def _place(self, talk: Sequence[Said]) -> Place:
        """Find where the session goes on with what is said."""
        settings = self.session.settings
        words, as_read = turns.words(settings), "system" not in settings
        line = turns.following(self._chat, self.session.turns(), talk, words, as_read=as_read)
        return turns.find(self._chat, self.session.tree(), line)

    def _check_length(self, count: int) -> None:
        if self.max_message_tokens is not None and count > self.max_message_tokens:
            raise ValueError(
                f"the message has {count:,} tokens; this chat takes {self.max_message_tokens:,}"
                " (raise it with --max-message-tokens, or read a long text once with"
                " `griffin state build`)"
            )

    def _keep(self, place: Place, stream: Stream, before: Context) -> None:
        result, after = stream.result, stream.context
        done = turns.answered(self._chat, place.rest, result.ids, result.text)
        turn: dict[str, Any] = {
            "role": done.role,
            "ids": done.ids,
            "text": done.text,
            "before": place.rest.before,
            "state": after.state,
            "pending": [*after.pending[:-1], done.ids[-1]],
            "settings": {**self.session.settings, "model": self.llm.name},
            "stats": {
                "finish_reason": result.finish_reason,
                "generated_tokens": result.generated_tokens,
                "seconds": round(result.seconds, 6),
                "seed": result.seed,
            },
        }
        session = self.session
        try:
            session.commit(**turn)
        except (SessionError, OSError) as error:
            if not self.kept:
                raise
            self.session = _in_memory(self.llm, session, before)
            self.trouble = str(error)
            self.session.commit(**turn)
            session.close()
        except KeyboardInterrupt:
            self.resume()  # the turn may be on the disk already
            raise
        self.context = replace(after, pending=tuple(turn["pending"]))

    def _move(self, move: Callable[[], Turn | None]) -> Turn | None:
        """Go somewhere, and back if the state there cannot be read or the user interrupts."""
        here = _number(self.session)
        turn = move()
        try:
            self.resume()
        except (SessionError, KeyboardInterrupt):
            self.session.goto(here)
            raise
        return turn

    def _stand_at(self, context: Context, seconds: float) -> Context:
        self.context, self.resume_seconds = context.to(self.llm.model.device), seconds
        return self.context


def begin(
    llm: LLM, store: Store | None, name: str | None = None, system: str | None = None
) -> Session:
    """Begin a session of the store, or one in memory where there is none."""
    return (store or Store.in_memory()).create(
        name,
        fingerprint=fingerprint_of(llm),
        config=llm.model.config,
        settings={} if system is None else {"system": system},
    )


def _in_memory(llm: LLM, session: Session, context: Context) -> Session:
    """Return a session in memory that goes on from where another stands."""
    store, line = Store.in_memory(), session.turns()
    if not line:
        return begin(llm, store)
    mark, config = session.fingerprint, session.config
    info = info_of(line, context.pending, mark, config, session.title, llm.name)
    name = store.import_state(info, context.state).name
    made = store.open(name, session.fingerprint)
    made.update(settings=session.settings)
    return made


def _timed(session: Session) -> tuple[Context, float]:
    started = time.perf_counter()
    return session.resume(), time.perf_counter() - started


def _number(session: Session) -> int | None:
    return session.head.number if session.head else None
