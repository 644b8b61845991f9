"""`griffin chat`: talk with a model in the terminal. The conversation lives as long as the program."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.generate import statistics
from griffin.cli.options import model_options, open_llm, sampling_from, sampling_options

if TYPE_CHECKING:
    from griffin.answer import Context
    from griffin.llm import LLM

_FENCE = '"""'
_HELP = """\
  /system TEXT     say how the model should behave; begins a new conversation
  /set NAME VALUE  change a sampling parameter, such as /set temperature 0.7; /set shows them all
  /tokens          show how long the conversation is and how fast the last answer came
  /clear           forget the conversation
  /bye             leave, as Ctrl-D does
  \"\"\"              begin and end a message of several lines
  Ctrl-C           stop the answer"""


@click.command("chat")
@model_options
@sampling_options
@click.option("--system", metavar="TEXT", help="How the model should behave.")
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
    stats: bool,
    **sampling: Any,
) -> None:
    """Talk with a model. /help lists what can be typed besides messages.

    Each turn reads only what is new: what was said before is in the model's state, of fixed size.
    """
    fields = sampling_from(sampling)
    llm = open_llm(model, tokenizer, revision, dtype, quantize, device, threads)
    llm.params(**fields)
    talk = Conversation(llm, system, fields)
    if sys.stdin.isatty():
        import readline  # noqa: F401  importing it gives input() a history and editing

        click.secho(f"{llm.name}: /help for help, Ctrl-D to leave", dim=True, err=True)
    while (message := _message()) is not None:
        if message.startswith("/"):
            if not _obey(talk, message):
                break
        elif message.strip():
            _answer(talk, message, stats)


class Conversation:
    """A conversation in memory: a context that each turn extends by what is new.

    context: None before the first turn. report: a line about the last answer.
    """

    def __init__(self, llm: LLM, system: str | None, sampling: dict[str, Any]) -> None:
        self.llm = llm
        self.system = system
        self.sampling = sampling
        self.context: Context | None = None
        self.report = ""
        self._chat = llm.chat_format  # ValueError now if the model knows no turns

    def clear(self) -> None:
        """Forget what was said; the system text stays."""
        self.context = None

    def set(self, name: str, value: Any) -> None:
        """Change a sampling parameter; ValueError if there is none of that name or the value is wrong."""
        changed = self.sampling | {name: value}
        self.llm.params(**changed)
        self.sampling = changed

    def prompt(self, message: str) -> Context:
        """Return the context after a new user message, up to the model's turn."""
        from griffin.answer import Context

        turn = {"role": "user", "content": message}
        if self.context is None:
            before = [] if self.system is None else [{"role": "system", "content": self.system}]
            ids = self._chat.ids([*before, turn])
            return Context(state=None, pending=tuple(ids), seen=None, tokens=len(ids))
        last = self.context.pending[-1]
        if last == self.llm.tokenizer.eos_id:
            # The model ended its turn with EOS; the turn's own end, which comes next, takes its place.
            ids = self._chat.turn_ids(turn)
            return Context(
                state=self.context.state,
                pending=tuple(ids),
                seen=self.context.seen,
                tokens=self.context.tokens - 1 + len(ids),
            )
        return self.context.then(self._chat.turn_ids(turn, closed=last in self._chat.stop_ids))

    def say(self, message: str) -> Generator[str, None, None]:
        """Answer a message piece by piece; what was said when the caller stops listening stays said.

        An answer that is stopped before its first token, or torn by an exception, leaves the conversation as
        it was.
        """
        llm = self.llm
        stops = sorted(self._chat.stop_ids | set(self.sampling.get("stop_ids", ())))
        stream = llm.stream(self.prompt(message), **self.sampling | {"stop_ids": stops})
        with suppress(GeneratorExit):
            for piece in stream:
                yield piece.text
        # Not reached if a step was torn by an exception: then there is no state to go on from.
        stream.close()
        if stream.result.ids:
            self.context = stream.context
        self.report = statistics(stream.result)


def _answer(talk: Conversation, message: str, stats: bool) -> None:
    try:
        with _interruptible() as stopped, closing(talk.say(message)) as pieces:
            for text in pieces:
                sys.stdout.write(text)
                sys.stdout.flush()
                if stopped:
                    break
    except KeyboardInterrupt:
        click.echo("\nstopped in the middle of a step; this message is forgotten", err=True)
        return
    click.echo()
    if stats:
        click.secho(talk.report, dim=True, err=True)


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


def _message() -> str | None:
    """Read a message from the terminal; None when there are no more."""
    prompt = ">>> " if sys.stdin.isatty() else ""
    try:
        line = input(prompt)
        if not line.startswith(_FENCE):
            return line.rstrip()
        lines = [line.removeprefix(_FENCE)]
        while not lines[-1].rstrip().endswith(_FENCE):
            lines.append(input("... " if prompt else ""))
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


def _obey(talk: Conversation, line: str) -> bool:
    """Do what a line that begins with / says; return whether to go on."""
    verb, _, rest = line.partition(" ")
    rest = rest.strip()
    if verb in ("/bye", "/exit", "/quit"):
        return False
    if verb == "/help":
        click.echo(_HELP)
    elif verb == "/clear":
        talk.clear()
        click.echo("a new conversation")
    elif verb == "/system":
        talk.system = rest or None
        talk.clear()
        click.echo("a new conversation" + (" with this system text" if rest else " without system text"))
    elif verb == "/tokens":
        count = 0 if talk.context is None else talk.context.tokens
        click.echo(f"{count:,} tokens in the conversation")
        if talk.report:
            click.echo(f"last answer: {talk.report}")
    elif verb == "/set":
        _set(talk, rest)
    else:
        click.echo(f"no command {verb}; /help lists them (begin with a space to say it to the model)")
    return True


def _set(talk: Conversation, rest: str) -> None:
    name, _, text = rest.partition(" ")
    name = name.replace("-", "_")
    if name:
        value: Any = (text.strip(),) if name == "stop" else _parsed(text.strip())
        try:
            talk.set(name, value)
        except ValueError as error:
            click.echo(str(error))
            return
    params = talk.llm.params(**talk.sampling)
    for field, value in vars(params).items():
        if not name or field == name:
            click.echo(f"{field} = {dict(value) if field == 'logit_bias' else value}")


def _parsed(text: str) -> Any:
    """Return a number where the text is one, None for "none" and "off", else the text."""
    if text.lower() in ("none", "off"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
