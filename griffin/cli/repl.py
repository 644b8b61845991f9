"""The loop of `griffin chat`: read a message, answer it, until there are no more."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from griffin.cli.generate import statistics

if TYPE_CHECKING:
    from griffin.cli.chat_commands import Commands
    from griffin.conversation import Conversation

_FENCE = '"""'
_LINES = 1000  # of history


def run(commands: Commands, *, notice: str, stats: bool, history: Path | None = None) -> None:
    """Talk until the input ends or /bye. `history`: where typed lines are kept, None for nowhere."""
    talk = commands.talk
    click.secho(f"{talk.llm.name}: {notice}", dim=True, err=True)
    with _editing(history if sys.stdin.isatty() else None):
        if sys.stdin.isatty():
            click.secho("/help for help, Ctrl-D to leave", dim=True, err=True)
        while (message := read_message()) is not None:
            try:
                if message.startswith("/"):
                    pieces = commands.obey(message)
                    if commands.over:
                        break
                elif message.strip():
                    pieces = talk.say(message)
                else:
                    continue
                if pieces is not None:
                    answer(talk, pieces, stats)
            except (ValueError, OSError) as error:
                # What was typed, a file or the disk is at fault; the conversation is as it was.
                click.echo(" ".join(str(error).split()))


def answer(talk: Conversation, pieces: Generator[str, None, None], stats: bool) -> None:
    """Print an answer as it comes. Ctrl-C ends it between two tokens, a second one at once."""
    before, in_memory = talk.context, talk.trouble
    try:
        with _interruptible() as stopped, closing(pieces):
            for text in pieces:
                sys.stdout.write(text)
                sys.stdout.flush()
                if stopped:
                    break
    except KeyboardInterrupt:
        kept = talk.tokens != before.tokens
        ending = "the answer so far is kept" if kept else "this message is forgotten"
        click.echo(f"\nstopped in the middle of a step; {ending}", err=True)
        return
    click.echo()
    if talk.trouble != in_memory:
        click.secho(
            f"not kept: {talk.trouble}. Going on in memory; /save NAME keeps it, once there is room",
            fg="yellow",
            err=True,
        )
    if stats and talk.result is not None:
        click.secho(statistics(talk.result), dim=True, err=True)


def read_message(ask: Callable[[str], str] = input) -> str | None:
    """Read a message from the terminal; None when there are no more."""
    prompt = ">>> " if sys.stdin.isatty() else ""
    try:
        line = ask(prompt)
        if not line.startswith(_FENCE):
            return line.rstrip()
        lines = [line.removeprefix(_FENCE)]
        while not lines[-1].rstrip().endswith(_FENCE):
            lines.append(ask("... " if prompt else ""))
    except EOFError:
        if prompt:
            click.echo()
        return None
    except KeyboardInterrupt:
        if not prompt:
            raise
        click.echo()
        return ""
    return "\n".join(lines).rstrip().removesuffix(_FENCE).strip("\n")


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """Note Ctrl-C in the list instead of raising, so that no step is torn; the second one raises.

    A step that was torn has used up its state; stopping between two steps keeps the conversation whole.
    """
    stopped: list[bool] = []

    def note(_signal: int, _frame: object) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _editing(history: Path | None) -> Iterator[None]:
    """Give input() editing and a history, with the lines of earlier times, where there is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    import readline

    readline.set_history_length(_LINES)
    if history is not None and history.is_file():
        readline.read_history_file(history)
    try:
        yield
    finally:
        if history is not None:
            try:
                history.touch(mode=0o600)
                readline.write_history_file(history)
            except OSError as error:
                click.echo(f"the history of what was typed is not kept: {error}", err=True)
