"""The loop of `griffin chat`: read a message, answer it, until there are no more."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from griffin.cli.chat import painting
from griffin.cli.shared.results import statistics
from griffin.cli.shared.seen import seen

if TYPE_CHECKING:
    from griffin.answer import Result
    from griffin.cli.chat.slash_commands import Commands
    from griffin.conversation import Conversation

_FENCE = '"""'
_LINES = 1000  # of history
_LEAVE = ("exit", "quit", "bye")  # said as they are; with a space before, the model hears them


def run(
    commands: Commands, *, notice: str, stats: bool, plain: bool, history: Path | None = None
) -> None:
    """Talk until the input ends, /bye or exit.

    plain: show answers as they are written. history: where typed lines are kept, None for nowhere.
    """
    plain = plain or not painting.wanted()
    talk = commands.talk
    click.secho(f"{talk.llm.name}: {notice}", dim=True, err=True)
    with _editing(history if sys.stdin.isatty() else None):
        if sys.stdin.isatty():
            click.secho("/help for help, Ctrl-D to leave", dim=True, err=True)
        while (message := read_message()) is not None:
            try:
                if message in _LEAVE:
                    break
                if message.startswith("/"):
                    pieces = commands.obey(message)
                    if commands.over:
                        break
                elif message.strip():
                    pieces = talk.say(message)
                else:
                    continue
                if pieces is not None:
                    answer(talk, pieces, stats, plain)
            except (ValueError, OSError) as error:
                # What was typed, a file or the disk is at fault; the conversation is as it was.
                click.echo(" ".join(str(error).split()))


def answer(
    talk: Conversation, pieces: Generator[str, None, None], stats: bool, plain: bool
) -> None:
    """Print an answer as it comes, and before its first token, if that takes long, a bar.

    Ctrl-C before its first token stops the reading at once, and nothing was said. Later it ends the
    answer between two tokens, and a second one at once.
    """
    from griffin.cli.shared.progress import PromptBar

    before, in_memory = talk.context, talk.trouble
    stop, painter = _Stop(), painting.Painter()
    try:
        with stop, PromptBar() as bar, closing(pieces):
            talk.progress = bar.read
            try:
                for text in pieces:
                    bar.end()
                    stop.gently = True
                    sys.stdout.write(seen(text) if plain else painter.push(text))
                    sys.stdout.flush()
                    if stop.asked:
                        break
            finally:  # whatever ended it, no style stays on
                sys.stdout.write("" if plain else painter.finish())
    except KeyboardInterrupt:
        if not stop.gently:
            ending = "stopped before an answer began; the conversation stays where it was"
        elif talk.tokens != before.tokens:
            ending = "stopped in the middle of a step; the answer so far is kept"
        else:
            ending = "stopped in the middle of a step; this message is forgotten"
        click.echo(f"\n{ending}", err=True)
        return
    click.echo()
    if talk.trouble != in_memory:
        click.secho(
            f"not kept: {talk.trouble}. Going on in memory; /save NAME keeps it, once there is"
            " room",
            fg="yellow",
            err=True,
        )
    if talk.result is not None and (told := mark(talk.result)):
        click.secho(f"[{told}]", fg="yellow", err=True)
    if stats and talk.result is not None:
        click.secho(statistics(talk.result), dim=True, err=True)


def mark(result: Result) -> str:
    """Return what is to be said of an answer that is not whole, or says nothing."""
    count = f"{result.generated_tokens:,} token{'s' * (result.generated_tokens != 1)}"
    if result.finish_reason == "length":
        return f"cut after {count}; /continue goes on"
    if result.finish_reason == "cancelled":
        return f"stopped after {count}; /continue goes on"
    return "" if result.text.strip() else "an empty answer; /regen asks for another"


def read_message(ask: Callable[[str], str] = input) -> str | None:
    """Read a message from the terminal; None when there are no more."""
    prompt, lines = ">>> " if sys.stdin.isatty() else "", list[str]()
    try:
        line = ask(prompt)
        if not line.startswith(_FENCE):
            return line.rstrip()
        lines.append(line.removeprefix(_FENCE))
        while not lines[-1].rstrip().endswith(_FENCE):
            lines.append(ask("... " if prompt else ""))
    except EOFError:
        if prompt:
            click.echo()
        if lines:
            click.echo(f"{_FENCE} was not closed; what is behind it was not said", err=True)
        return None
    except KeyboardInterrupt:
        if not prompt:
            raise
        click.echo()
        return ""
    return "\n".join(lines).rstrip().removesuffix(_FENCE).strip("\n")


class _Stop:
    """Listens to Ctrl-C in a `with` block.

    gently: only note the first one in `asked`, so that the answer stops between two steps and the
            conversation stays whole; the second one raises KeyboardInterrupt. Otherwise the first
            one raises: what is read for an answer that has not begun may be dropped.
    """

    def __init__(self) -> None:
        self.gently = False
        self.asked = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _signal: int, _frame: object) -> None:
        if self.asked or not self.gently:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def _editing(history: Path | None) -> Iterator[None]:
    """Give input() editing and a history, with the lines of earlier times, where there is a
    terminal."""
    try:
        import readline
    except ImportError:  # some Pythons are built without it
        readline = None
    if readline is None or not sys.stdin.isatty():
        yield
        return
    readline.set_history_length(_LINES)
    # Pasted lines are one message: Python turns off what readline does by itself.
    readline.parse_and_bind("set enable-bracketed-paste on")
    if history is not None and history.is_file():
        try:
            readline.read_history_file(history)
        except OSError as error:
            click.echo(f"the history of what was typed cannot be read: {error}", err=True)
            history = None
    try:
        yield
    finally:
        if history is not None:
            try:
                history.touch(mode=0o600)
                readline.write_history_file(history)
            except OSError as error:
                click.echo(f"the history of what was typed is not kept: {error}", err=True)
