"""The command `griffin`: one verb a file, imported when it is called."""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from griffin import __version__
from griffin.cli.shared.config import VERBS as OWN
from griffin.cli.shared.config import own_defaults, show_config

# verb -> where its command is, and the line `griffin --help` shows (known without importing the
# verb)
VERBS = {
    "generate": (
        "griffin.cli.generate:command",
        "Continue a prompt, a file or standard input of any size.",
    ),
    "chat": ("griffin.cli.chat.command:command", "Talk with a model in the terminal."),
    "serve": (
        "griffin.cli.serve:command",
        "Serve a model over HTTP: OpenAI's interface and a chat page.",
    ),
    "batch": ("griffin.cli.batch:command", "Answer a file of requests at full load."),
    "state": ("griffin.cli.state:command", "Keep, show, copy and compare what a model has read."),
    "ask": ("griffin.cli.ask:command", "Read a text once, answer many questions about it."),
    "watch": (
        "griffin.cli.watch:command",
        "Read a stream without end, answer every so many lines.",
    ),
    "plan": ("griffin.cli.plan:command", "Say what fits into a machine's memory, and how fast."),
    "models": ("griffin.cli.models:command", "List the models that are here."),
    "pull": ("griffin.cli.pull:command", "Fetch a model before it is used."),
    "rm": ("griffin.cli.rm:command", "Remove a downloaded model."),
    "info": ("griffin.cli.info:command", "Show a model's shape, size, state and kernels."),
    "convert": (
        "griffin.cli.convert:command",
        "Rewrite a checkpoint in another layout.",
    ),
    "quantize": ("griffin.cli.quantize:command", "Write a checkpoint in int8 or int4."),
    "merge": ("griffin.cli.merge:command", "Write a model and a LoRA as one checkpoint."),
    "train": ("griffin.cli.train:command", "Train a model as a recipe says."),
    "finetune": (
        "griffin.cli.finetune:command",
        "Tune a model on your data: answers, preferences or rewards.",
    ),
    "export": ("griffin.cli.export:command", "Write a training run's checkpoint as a model."),
    "evaluate": (
        "griffin.cli.evaluate.command:command",
        "Measure a model by tasks of lm-eval.",
    ),
    "config": ("griffin.cli.config:command", "Show or change the options' defaults."),
    "bench": (
        "griffin.cli.bench.command:command",
        "Measure speed and memory, each beside its limit.",
    ),
}

# Words for them in other programs.
_ELSEWHERE = {"run": "chat", "list": "models", "ls": "models", "download": "pull", "show": "info"}

MISUSE, FAILURE, INTERRUPTED = 2, 1, 130
# A bug is none of these and keeps its traceback.
_TROUBLE = (OSError, RuntimeError, ArithmeticError, ImportError, MemoryError)


class Verbs(click.Group):
    """The group of verbs: loads each when it is called; an error is one line and an exit code."""

    def main(self, *arguments: Any, **more: Any) -> Any:
        _prepare_streams()
        return super().main(*arguments, **more)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        if cmd_name in OWN:
            ctx.default_map = {cmd_name: own_defaults(command)}
        if all(parameter.name != "debug" for parameter in command.params):
            command.params.append(_debug_option())
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, ...]:
        verbs = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in verbs:
            near = _ELSEWHERE.get(args[0]) or next(iter(get_close_matches(args[0], verbs, n=1)), "")
            meant = f"; did you mean {near}?" if near else f"; there are {', '.join(verbs)}"
            ctx.fail(f"No such command {args[0]!r}{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = {"debug": False}
        first = next(iter(ctx.args), "")  # behind the verb: of a group, which of its commands
        try:
            with warnings.catch_warnings():
                warnings.showwarning = partial(_note, warnings.showwarning)
                return super().invoke(ctx)
        except click.UsageError as error:
            # `griffin chat nano`, as others have it.
            takes = error.ctx.command.params if error.ctx is not None else ()
            if "extra argument" in error.message and any("--model" in p.opts for p in takes):
                told = f"{error.message}; a model is named with --model"
                raise click.UsageError(told, error.ctx) from None
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # click's own; some of them are RuntimeErrors
        except KeyboardInterrupt:
            click.echo("", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader (`| head`) has what it wanted. What Python would flush at exit has nowhere
            # to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(FAILURE)
        except (ValueError, *_TROUBLE) as error:
            if ctx.obj["debug"]:
                raise
            verb = ctx.invoked_subcommand
            command = None if verb is None else self.get_command(ctx, verb)
            if isinstance(command, click.Group) and first in command.commands:
                command, verb = command.commands[first], f"{verb} {first}"
            _complain(error, verb, {} if command is None else _flags(command))
            ctx.exit(MISUSE if isinstance(error, ValueError) else FAILURE)


def _prepare_streams() -> None:
    """Put an empty stream in the place of each of the three that was closed (`<&-`, some daemons),
    and have them take what their encoding has no letter for.

    Without that Python has None there, and the next file that is opened becomes what is printed to;
    and a chat ends at the first such letter that is typed or answered.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):  # somebody has read from it before
                stream.reconfigure(errors="replace")


def _note(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """Print what one of our own warnings says, and no more; others as Python prints them."""
    if category.__module__.startswith("griffin."):
        click.echo(f"note: {message}", err=True)
    else:
        otherwise(message, category, *where)


def _complain(error: BaseException, verb: str | None, options: dict[str, str]) -> None:
    """Print an error as one line and a hint. options: the verb's, by the names of parameters."""
    text = _in_words_of_options(" ".join(str(error).split()), options) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"out of memory ({text})"
    if isinstance(error, ModuleNotFoundError) and (extra := _extra_with(error.name or "")):
        text = f"griffin {verb} needs {error.name}: pip install 'griffin-lm[{extra}]'"
    click.secho("griffin: ", fg="red", nl=False, err=True)
    click.echo(text, err=True)
    if isinstance(error, ValueError):
        help = "griffin --help" if verb is None else f"griffin {verb} --help"
        click.secho(f"  see `{help}`; --debug shows where this was found", dim=True, err=True)
    else:
        click.secho("  --debug shows where this happened", dim=True, err=True)


def _flags(command: click.Command) -> dict[str, str]:
    """Return a command's options, and those of the commands within it, by what Python calls them.

    One that may be repeated is a plural there: stop_ids is --stop-id.
    """
    inner: dict[str, click.Command] = getattr(command, "commands", {})
    found = {name: flag for each in inner.values() for name, flag in _flags(each).items()}
    for parameter in command.params:
        flag = max(parameter.opts, key=len)
        name = flag.lstrip("-").replace("-", "_")
        if flag.startswith("-") and parameter.name in (name, f"{name}s"):
            found[parameter.name] = flag
    return found


def _in_words_of_options(text: str, options: dict[str, str]) -> str:
    """Call what a message says of Python's parameters by the names of the options.

    At its beginning, before "=", and wherever a name of several words stands, it is one.
    """
    names = sorted(options, key=len, reverse=True)
    if not names:
        return text
    plain = "|".join(map(re.escape, names))
    several = "|".join(re.escape(name) for name in names if "_" in name) or "(?!)"
    where = rf"^(?:{plain})(?= must\b| is\b)|(?<![\w.-])(?:(?:{plain})(?==)|(?:{several})(?!\w))"
    return re.sub(where, lambda found: options[found[0]], text)


def _extra_with(module: str) -> str | None:
    """Return which of our extras brings a module, None where none does."""
    from importlib import metadata

    name = module.partition(".")[0].replace("_", "-")
    for line in metadata.requires("griffin-lm") or ():
        found = re.match(r"([\w-]+).*; *extra == ['\"]([\w-]+)['\"]", line)
        if found is not None and found[1].lower() == name:
            return found[2]
    return None


def _set_debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().obj = {"debug": True}


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        help="Show the whole traceback of an error.",
    )


def _show_config(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        try:
            show_config(as_json=False)
        except (ValueError, OSError) as error:
            raise click.UsageError(str(error)) from None
        ctx.exit()


def _no_color() -> bool | None:
    """Return False where colours are unwanted (no-color.org), None to let click decide."""
    return False if os.environ.get("NO_COLOR") else None


@click.group(
    cls=Verbs,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "color": _no_color(),
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="griffin")
@click.option(
    "--show-config",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_config,
    help="Show the options' own defaults (griffin config) and exit.",
)
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """RecurrentGemma and Griffin language models: exact, fast, with a state of fixed size."""
    if debug:
        ctx.obj = {"debug": True}
