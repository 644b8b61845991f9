"""Which conversation `griffin chat` goes on with, or how it begins one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from griffin.cli.shared.seen import harmless
from griffin.cli.shared.stores import state_file

if TYPE_CHECKING:
    from griffin.cli.shared.model_source import ModelSource
    from griffin.conversation import Conversation
    from griffin.llm import LLM
    from griffin.sessions import Session, Store


def resumed(talk: Conversation) -> str:
    """Return a line about what was just taken up."""
    state = talk.context.state
    nbytes = 0 if state is None else state.nbytes
    return f"{talk.tokens:,} tokens in {nbytes:,} bytes, {1000 * talk.resume_seconds:,.1f} ms"


def show_last(talk: Conversation) -> None:
    """Show on standard error what was said last, and the system text."""
    if talk.system:
        click.secho(harmless(f"system text: {talk.system}"), dim=True, err=True)
    from griffin.conversation.turns import EXCHANGE

    turns = talk.session.turns()
    said = [n for n, turn in enumerate(turns) if turn.role == EXCHANGE and turn.text]
    if not said:
        return
    # An answer that was cut, and what went on with it, is one.
    last = "".join(turn.text or "" for turn in turns[said[-1] :])
    click.secho(harmless(last), dim=True, err=True)
    if turns[-1].stats.get("finish_reason") in ("length", "cancelled"):
        click.secho("[cut; /continue goes on]", fg="yellow", err=True)


def check_start(store: Callable[[], Store] | None, name: str | None, state: str | None) -> None:
    """Raise ValueError, before a model is loaded, for a name or a beginning that is none.

    store: where sessions are kept; None where none is.
    """
    from griffin.sessions import check_name

    if name is not None:
        check_name(name)
    if state is not None and state_file(state) is None:
        if store is None:
            raise click.UsageError(
                f"there is no state file {state}; with --no-persist a conversation begins from a"
                " file"
            )
        store().show(state)


def parted(source: ModelSource) -> tuple[ModelSource, str | None]:
    """Return the model, behind its tuned state where `--state` is one, and what else `--state`
    says to begin from; None for nothing."""
    from griffin.adapters import is_tuned

    path = None if source.state is None else state_file(source.state)
    if path is not None and is_tuned(path):
        return replace(source, state=str(path)), None
    return replace(source, state=None), source.state


def open_session(
    llm: LLM,
    store: Callable[[], Store],
    name: str | None,
    state: str | None,
    system: str | None,
    new: bool,
    no_persist: bool,
) -> tuple[Session, str]:
    """Open or begin the conversation that the options mean; return it and how it came about."""
    from griffin.conversation import begin, fingerprint_of
    from griffin.sessions import SessionBusy, UnknownSession

    fingerprint = fingerprint_of(llm)
    if state is not None:
        return begin_from(llm, None if no_persist else store(), store, state, name, system)
    if no_persist:
        return begin(llm, None, system=system), "a conversation that is not kept"
    if name is not None:
        try:
            session = store().open(name, fingerprint)
        except UnknownSession:
            return begin(llm, store(), name, system), f"began {name}"
        if system is not None:
            session.update(settings=session.settings | {"system": system})
        return session, f"resumed {name}"
    if not new:
        # Those of other models are left alone.
        latest = next((info for info in store().list() if info.fingerprint == fingerprint), None)
        if latest is not None:
            try:
                return store().open(latest.name, fingerprint), f"resumed {latest.name}"
            except SessionBusy as error:
                session = begin(llm, store(), system=system)
                return session, f"{error}. Began {session.name} instead"
    session = begin(llm, store(), system=system)
    return session, f"began {session.name}"


def begin_from(
    llm: LLM,
    kept: Store | None,
    store: Callable[[], Store],
    what: str,
    name: str | None,
    system: str | None = None,
) -> tuple[Session, str]:
    """Begin a conversation from a state file or a session, which stay as they are.

    kept:  where it is kept; None for memory. store: where a session of that name is looked for.
    what:  a file, with or without its ending .state, or a session's name.
    """
    from griffin.conversation import fingerprint_of
    from griffin.sessions import Store

    fingerprint = fingerprint_of(llm)
    path = state_file(what)
    if path is None:
        if kept is None:
            raise click.UsageError(
                f"there is no state file {what}; with --no-persist a conversation begins from a"
                " file"
            )
        with store().open(what, fingerprint) as original:
            name = original.fork(name)
    else:
        kept = kept or Store.in_memory()
        name = kept.import_(path, name, fingerprint=fingerprint).name
    session = kept.open(name, fingerprint)
    if system is not None:
        session.update(settings=session.settings | {"system": system})
    return (
        session,
        f"began {name} from {what}" if session.durable else f"began from {path}, kept nowhere",
    )


def forget_if_empty(session: Session, stores: list[Store]) -> None:
    """Remove a closed session in which nothing was ever said."""
    if session.durable and not session.tree():
        stores[0].delete(session.name)
