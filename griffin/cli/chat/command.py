"""`griffin chat`: talk with a model in the terminal, on a conversation that outlives the
program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.model_source import ModelSource, model_options, talker_option
from griffin.cli.shared.sampling import sampling_from, sampling_options
from griffin.cli.shared.stores import default_store, open_store, store_option

if TYPE_CHECKING:
    from griffin.sessions import Store

LONGEST = 1 << 17  # tokens of a message, unless the user says otherwise


@click.command("chat")
@model_options
@talker_option
@sampling_options
@click.option(
    "--system", metavar="TEXT", help="How the model should behave; begins a new conversation."
)
@click.option("--new", is_flag=True, help="Begin a new conversation instead of the last one.")
@click.option("--session", "name", metavar="NAME", help="Continue this conversation, or begin it.")
@click.option(
    "--state",
    metavar="FILE|NAME",
    help="Begin from a state file, or from a copy of a session; with a tuned state, behind it.",
)
@click.option("--no-persist", is_flag=True, help="Keep nothing on the disk.")
@store_option
@click.option(
    "--max-message-tokens",
    type=click.IntRange(1),
    default=LONGEST,
    show_default=True,
    help="The most tokens a message may have.",
)
@click.option(
    "--plain", is_flag=True, help="Show answers as they are written, without Markdown's styles."
)
@click.option("--stats", is_flag=True, help="Print counts and speed after each answer.")
def command(
    source: ModelSource,
    system: str | None,
    new: bool,
    name: str | None,
    no_persist: bool,
    folder: Path | None,
    max_message_tokens: int,
    plain: bool,
    stats: bool,
    **sampling: Any,
) -> None:
    """Talk with a model. /help lists what can be typed besides messages.

    Tokens are chosen with temperature 0.7, top-p 0.95 and min-p 0.05, at most 4,096 an answer,
    unless the model's generation_config.json or an option says otherwise; /set shows it.

    It continues the last conversation with this model without reading it again: what was said is in
    the model's state, which has a fixed size and is saved to a file after each answer. Leave at any
    time, in any way.
    """
    if no_persist and name is not None:
        raise click.UsageError(
            "--session names a conversation that is kept; --no-persist keeps none"
        )
    if new and name is not None:
        raise click.UsageError("give --new or --session; a session that is not there yet is begun")
    fields = sampling_from(sampling)
    opened: list[Store] = []

    def store() -> Store:  # with --no-persist only /save and /load want one
        if not opened:
            opened.append(open_store(folder))
        return opened[0]

    from griffin.cli.chat.opening import (
        check_start,
        forget_if_empty,
        open_session,
        parted,
        resumed,
        show_last,
    )
    from griffin.cli.chat.repl import run
    from griffin.cli.chat.slash_commands import Commands
    from griffin.conversation import Conversation

    try:
        check_start(None if no_persist else store, name, source.state)
        if not no_persist:
            store()  # a folder that cannot be written is told before a model is loaded
        source, state = parted(source)
        llm = source.llm()
        llm.params(**fields)
        _ = llm.chat_format  # ValueError now if the model knows no turns
        session, notice = open_session(
            llm, store, name, state, system, new or system is not None, no_persist
        )
        try:
            talk = Conversation(
                llm,
                session,
                sampling=fields,
                defaults=llm.chat_defaults,
                max_message_tokens=max_message_tokens,
            )
        except ValueError as error:
            session.close()
            if new or name is not None or state is not None:
                raise
            raise ValueError(
                f"{error}; `griffin chat --new` begins another conversation"
            ) from error
        try:
            notice = f"{notice}: {resumed(talk)}" if talk.tokens else notice
            history = None if no_persist else (folder or default_store()) / "history"
            if llm.caution:
                click.secho(llm.caution, fg="yellow", err=True)
            show_last(talk)
            run(Commands(talk, store), notice=notice, stats=stats, plain=plain, history=history)
        finally:
            talk.close()
            forget_if_empty(talk.session, opened)
    finally:
        for each in opened:
            each.close()
