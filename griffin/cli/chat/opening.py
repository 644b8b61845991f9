"""`griffin chat`: talk with a model in the terminal, on a conversation that outlives the
program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.options import model_options, open_llm, sampling_from, sampling_options
from griffin.cli.stores import default_store, open_store, store_option

if TYPE_CHECKING:
    from griffin.conversation import Conversation
    from griffin.llm import LLM
    from griffin.sessions import Session, Store

LONGEST = 1 << 17  # tokens of a message, unless the user says otherwise


@click.command("chat")
@model_options
@sampling_options
@click.option(
    "--system", metavar="TEXT", help="How the model should behave; begins a new conversation."
)
@click.option("--new", is_flag=True, help="Begin a new conversation instead of the last one.")
@click.option(
    "--session", "name", metavar="NAME", help="Go on with this conversation, or begin it."
)
@click.option(
    "--state", metavar="FILE|NAME", help="Begin from a state file, or from a copy of a session."
)
@click.option("--no-persist", is_flag=True, help="Keep nothing on the disk.")
@store_option
@click.option(
    "--max-message-tokens",
    type=click.IntRange(1),
    default=LONGEST,
    show_default=True,
    help="The longest message.",
)
@click.option("--stats", is_flag=True, help="Print counts and speed after each answer.")
def command(
    model: str,
    tokenizer: str | None,
    revision: str | None,
    dtype: str | None,
    quantize: str | None,
    device: str | None,
    threads: int | None,
    system: str | None,
    new: bool,
    name: str | None,
    state: str | None,
    no_persist: bool,
    folder: Path | None,
    max_message_tokens: int,
    stats: bool,
    **sampling: Any,
) -> None:
    """Talk with a model. /help lists what can be typed besides messages.

    The last conversation with this model is gone on with, without reading it again: what was said
    is in the model's state, of fixed size, kept in a file after each answer. Leave at any time,
    however you like.
    """
    if no_persist and name is not None:
        raise click.UsageError(
            "--session names a conversation that is kept; --no-persist keeps none"
        )
    if new and name is not None:
        raise click.UsageError("give --new or --session; a session that is not there yet is begun")
    fields = sampling_from(sampling)
    llm = open_llm(model, tokenizer, revision, dtype, quantize, device, threads)
    llm.params(**fields)
    _ = llm.chat_format  # ValueError now if the model knows no turns
    opened: list[Store] = []

    def store() -> Store:  # with --no-persist only /save and /load want one
        if not opened:
            opened.append(open_store(folder))
        return opened[0]

    from griffin.cli.chat_commands import Commands
    from griffin.cli.repl import run
    from griffin.conversation import Conversation

    try:
        thread, notice = _thread(
            llm, store, name, state, system, new or system is not None, no_persist
        )
        try:
            talk = Conversation(llm, thread, sampling=fields, max_message_tokens=max_message_tokens)
        except ValueError as error:
            thread.close()
            if new or name is not None or state is not None:
                raise
            raise ValueError(
                f"{error}; `griffin chat --new` begins another conversation"
            ) from error
        try:
            notice = f"{notice}: {resumed(talk)}" if talk.tokens else notice
            history = None if no_persist else (folder or default_store()) / "history"
            run(Commands(talk, store), notice=notice, stats=stats, history=history)
        finally:
            talk.close()
            forget_if_empty(talk.thread, opened)
    finally:
        for each in opened:
            each.close()


def resumed(talk: Conversation) -> str:
    """Return a line about what was just taken up."""
    state = talk.context.state
    nbytes = 0 if state is None else state.nbytes
    return f"{talk.tokens:,} tokens in {nbytes:,} bytes, {1000 * talk.resume_seconds:,.1f} ms"


def _thread(
    llm: LLM,
    store: Callable[[], Store],
    name: str | None,
    state: str | None,
    system: str | None,
    new: bool,
    no_persist: bool,
) -> tuple[Session, str]:
    """Open or begin the conversation that the options mean; return it and how it came about."""
    from griffin.conversation import fingerprint_of, new_thread
    from griffin.sessions import SessionBusy, UnknownSession

    fingerprint = fingerprint_of(llm)
    if state is not None:
        return begin_from(llm, None if no_persist else store(), store, state, name, system)
    if no_persist:
        return new_thread(llm, None, system=system), "a conversation that is not kept"
    if name is not None:
        try:
            session = store().open(name, fingerprint)
        except UnknownSession:
            return new_thread(llm, store(), name, system), f"began {name}"
        if (
            system is not None
            and session.head is not None
            and session.settings.get("system") != system
        ):
            session.close()
            raise click.UsageError(
                f"the conversation {name} has begun with another system text; leave --system out,"
                " or use /system there"
            )
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
                session = new_thread(llm, store(), system=system)
                return session, f"{error}. Began {session.name} instead"
    session = new_thread(llm, store(), system=system)
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
    if path is not None:
        home = Store.in_memory() if kept is None else kept
        name = home.import_(path, name, fingerprint=fingerprint).name
    elif kept is None:
        raise click.UsageError(
            f"there is no state file {what}; with --no-persist a conversation begins from a file"
        )
    else:
        home = kept
        with store().open(what, fingerprint) as original:
            name = original.fork(name)
    session = home.open(name, fingerprint)
    if system is not None:
        session.update(settings=session.settings | {"system": system})
    came = f"began {name} from {what}" if session.durable else f"began from {path}, kept nowhere"
    return session, came


def state_file(what: str) -> Path | None:
    """Return the file that is meant: of this name, or with .state after it; None if there is
    neither."""
    for path in (Path(what), Path(f"{what}.state")):
        if path.is_file():
            return path
    if "/" in what or what.endswith((".state", ".safetensors")):
        raise ValueError(f"there is no state file {what}")
    return None


def forget_if_empty(thread: Session, stores: list[Store]) -> None:
    """Remove a closed session in which nothing was ever said."""
    if thread.durable and not thread.tree():
        stores[0].delete(thread.name)
