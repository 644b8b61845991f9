"""`griffin config`: defaults of one's own for the options of verbs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from griffin.cli.shared.config import KEYS, check_entry, read_config, show_config, write_config


@click.group("config", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show or change what generate, chat, serve, batch, state, ask and watch use where no option
    says otherwise: model, quantize, store, threads.

    `griffin config set model recurrentgemma-2b-it`, `griffin config unset model`. The file is read
    by the command line alone; programs in Python and training do not see it.
    """
    if ctx.invoked_subcommand is None:
        show_config(as_json)


@command.command("set")
@click.argument("key")
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Make VALUE the default of the option that KEY names."""
    given = int(value) if key == "threads" and value.isdecimal() else value
    check_entry(key, given, "griffin config set")
    _check_here(key, value)
    click.echo(f"{write_config(read_config() | {key: given})}: {key} = {json.dumps(given)}")


def _check_here(key: str, value: str) -> None:
    """Refuse what no verb could use: a format that is none, a file in the place of a folder."""
    if key == "quantize":
        from griffin.quant import get_format

        get_format(value)
    if key == "store" and Path(value).exists() and not Path(value).is_dir():
        raise ValueError(f"griffin config set: store must be a folder; {value} is a file")


@command.command("unset")
@click.argument("key", type=click.Choice(list(KEYS)))
def unset(key: str) -> None:
    """Go back to griffin's own default."""
    write_config({name: value for name, value in read_config().items() if name != key})
    click.echo(f"{key}: griffin's own default")
