"""`griffin state`: states and conversations as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.about import about_file, about_session, about_turn
from griffin.cli.shared.model_source import ModelSource, model_options
from griffin.cli.shared.seen import harmless, seen
from griffin.cli.shared.stores import (
    excerpt,
    gist,
    model_of,
    open_store,
    server_store,
    state_file,
    store_option,
    when,
)
from griffin.outputs import file_to_write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from griffin.model import State
    from griffin.sessions import StateInfo, Store, Turn, TurnRecord

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("state")
def command() -> None:
    """Keep, show, copy and compare what a model has read.

    A state has a fixed size, however much was read. NAME is a kept conversation, FILE a state file.
    """


@command.command("build")
@click.option(
    "--from", "path", required=True, metavar="FILE", help="The text to read; - is standard input."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The state file to write.",
)
@click.option("--title", help="A name for people [default: the text's file name].")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@model_options
@as_json
def build(
    path: str,
    output: Path,
    title: str | None,
    force: bool,
    source: ModelSource,
    as_json: bool,
) -> None:
    """Read a text of any size, in constant memory, and keep the state it leads to.

    `griffin chat --state FILE` continues from there at once. The model then has the gist of the
    whole text, and word for word the last tokens, as many as fit into its window.
    """
    from griffin.cli.shared.reading import opened, read_text
    from griffin.sessions import NOTHING, StateInfo, extend_chain, save_state_file

    _check_output(output, force)
    if not output.resolve().parent.is_dir():
        raise click.UsageError(
            f"there is no folder {output.resolve().parent} to write {output.name} to"
        )
    with opened(path) as (stream, size):
        llm = source.llm()
        chain = NOTHING

        def keep(ids: Sequence[int]) -> None:
            nonlocal chain
            chain = extend_chain(chain, ids)

        context = read_text(llm, stream, size, keep)

    from griffin.conversation import fingerprint_of

    state = context.state
    info = StateInfo(
        fingerprint=fingerprint_of(llm),
        config=llm.model.config,
        tokens=context.tokens,
        chain=chain.hex(),
        pending=context.pending,
        model=llm.name,
        title=(
            title if title is not None else "standard input" if path == "-" else Path(path).name
        ),
    )
    nbytes = save_state_file(output, info, None if state is None else state.map(lambda t: t.cpu()))
    if as_json:
        _print({"file": str(output), "bytes": nbytes, **about_file(info)})
    else:
        click.echo(f"{output}: {gist(info.tokens, info.config)} ({nbytes:,} bytes)")


@command.command("ls")
@store_option
@as_json
def ls(folder: Path | None, as_json: bool) -> None:
    """List the kept conversations, those used last first."""
    with open_store(folder, make=False) as store:
        infos = store.list()
        if as_json:
            _print([about_session(info) for info in infos])
            return
        if not infos:
            click.echo(f"no conversations in {store.folder}")
            _tell_of_server(folder)
            return
        rows = [
            (
                info.name,
                f"{info.turns:,}",
                f"{info.tokens:,}",
                f"{info.nbytes:,}",
                model_of(info),
                when(info.used),
                harmless(info.title) or _beginning(store, info.name),
            )
            for info in infos
        ]
        _table(("name", "turns", "tokens", "bytes", "model", "used", "begins"), rows)
        _tell_of_server(folder)


def _tell_of_server(folder: Path | None) -> None:
    """Say where a server's conversations are, whoever looks for one among one's own."""
    if folder is None and server_store().is_dir():
        click.secho(f"a server's: griffin state ls --store {server_store()}", dim=True, err=True)


@command.command("show")
@click.argument("what", metavar="NAME|FILE")
@store_option
@as_json
def show(what: str, folder: Path | None, as_json: bool) -> None:
    """Show where a conversation or a state file stands, what it belongs to, and what was said."""
    from griffin.adapters import is_tuned
    from griffin.cli.shared.stores import about_tuned
    from griffin.sessions import read_state_info

    path = state_file(what)
    if path is not None and is_tuned(path):
        _show(about_tuned(path), (), None, as_json)
        return
    if path is not None:
        info = read_state_info(path)
        about = {"file": str(path), "bytes": path.stat().st_size, **about_file(info)}
        _show(about, info.turns, gist(info.tokens, info.config), as_json)
        return
    with open_store(folder, make=False) as store:
        found = store.show(what)
        _show(about_session(found), store.turns(what), None, as_json)


@command.command("fork")
@click.argument("name")
@click.argument("new", required=False)
@click.option(
    "--at", type=int, metavar="N", help="Turn where the copy ends [default: where NAME stands]."
)
@store_option
@as_json
def fork(name: str, new: str | None, at: int | None, folder: Path | None, as_json: bool) -> None:
    """Make another conversation, NEW, that begins with the turns of NAME and shares their files."""
    with (
        open_store(folder, make=False) as store,
        store.open(name, store.show(name).fingerprint) as session,
    ):
        made = session.fork(new, at=at)
        if as_json:
            _print(about_session(store.show(made)))
        else:
            click.echo(f"{made}: {store.show(made).tokens:,} tokens, from {name}")


@command.command("export")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The state file to write.",
)
@click.option("--at", type=int, metavar="N", help="Turn to export [default: where NAME stands].")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@store_option
@as_json
def export(
    name: str, output: Path, at: int | None, force: bool, folder: Path | None, as_json: bool
) -> None:
    """Write a conversation's state, with the text of its turns, as a file to carry anywhere."""
    _check_output(output, force)
    with open_store(folder, make=False) as store:
        nbytes = store.export(name, output, at=at)
    if as_json:
        _print({"file": str(output), "bytes": nbytes})
    else:
        click.echo(f"{output}: {nbytes:,} bytes")


@command.command("import")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the conversation it becomes.")
@store_option
@as_json
def import_(path: Path, name: str | None, folder: Path | None, as_json: bool) -> None:
    """Turn a state file into a kept conversation. The whole file is checked first."""
    with open_store(folder) as store:
        info = store.import_(path, name)
        if as_json:
            _print(about_session(info))
        else:
            click.echo(f"{info.name}: {info.tokens:,} tokens, from {path}")


@command.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@store_option
@as_json
def rm(names: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    """Delete conversations: text, tokens and states. Their forks lose nothing."""
    with open_store(folder, make=False) as store:
        for name in names:  # nothing is deleted if one is not there
            store.show(name)
        for name in names:
            store.delete(name)
    if as_json:
        _print({"deleted": list(names)})
    else:
        click.echo(f"deleted {', '.join(names)}")


@command.command("diff")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@store_option
@as_json
def diff(a: str, b: str, folder: Path | None, as_json: bool) -> None:
    """Show how far two states of a model lie apart, layer by layer.

    A and B are state files or conversations; NAME@N is turn N. The distance is relative to the
    larger of the two, 0 for equal ones. Keys and values are compared from the last token back; keys
    are rotated by their position, so those of texts of different lengths differ in any case.
    """
    from griffin.conversation import compare

    (info_a, state_a), (info_b, state_b) = (_load(what, folder) for what in (a, b))
    different = info_a.fingerprint.differences(info_b.fingerprint)
    if "config" in different or "dtype" in different:
        raise ValueError(
            f"{a} and {b} are states of models of different shapes or types; they cannot be"
            " compared"
        )
    if state_a is None or state_b is None:
        raise ValueError(
            f"nothing has been read in {a if state_a is None else b} yet; there is no state"
        )
    found = compare(info_a.config, state_a, state_b)
    if as_json:
        layers = [vars(each) | {"kind": info_a.config.block_types[each.layer]} for each in found]
        _print(
            {
                "tokens": [info_a.tokens, info_b.tokens],
                "equal": all(each.equal for each in found),
                "different_model": sorted(different),
                "layers": layers,
            }
        )
        return
    if different:
        click.echo(f"notice: of different models ({', '.join(sorted(different))} differ)", err=True)
    click.echo(f"{info_a.tokens:,} and {info_b.tokens:,} tokens")
    rows = [
        (
            str(each.layer),
            info_a.config.block_types[each.layer],
            each.part,
            "equal" if each.equal else f"{each.distance:.6f}",
            f"{each.cosine:.6f}",
        )
        for each in found
    ]
    _table(("layer", "kind", "part", "distance", "cosine"), rows)


def _check_output(output: Path, force: bool) -> None:
    """Refuse to write over a file without --force, and over what is no file with it, too."""
    if file_to_write(output).exists() and not force:
        raise click.UsageError(f"{output} is there already; --force replaces it")


def _load(what: str, folder: Path | None) -> tuple[StateInfo, State | None]:
    """Read a state file, or the state of a conversation; NAME@N is that of turn N."""
    import tempfile

    from griffin.sessions import load_state_file

    path = state_file(what)
    if path is not None:
        return load_state_file(path)
    name, at, number = what.partition("@")
    if at and not number.isdecimal():
        raise ValueError(f"{what!r}: after @ comes the number of a turn")
    # By way of a file, so that a conversation may be looked at while it goes on elsewhere.
    with (
        open_store(folder, make=False) as store,
        tempfile.TemporaryDirectory(prefix="griffin-") as beside,
    ):
        exported = Path(beside) / "state"
        try:
            store.export(name, exported, at=int(number) if at else None)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        return load_state_file(exported)


def _show(
    about: dict[str, Any],
    turns: tuple[Turn, ...] | tuple[TurnRecord, ...],
    kept: str | None,
    as_json: bool,
) -> None:
    if as_json:
        _print(
            about | {"turns": [about_turn(number, turn) for number, turn in enumerate(turns, 1)]}
        )
        return
    for name, value in about.items():
        if name == "fingerprint":
            click.echo(
                "belongs to:  "
                + ", ".join(f"{part} {_short(word)}" for part, word in value.items())
            )
        elif name in ("created", "used"):
            click.echo(f"{name + ':':12} {when(value)}")
        elif value not in ("", None, {}):
            shown = f"{value:,}" if isinstance(value, int) else seen(str(value))
            click.echo(f"{name + ':':12} {shown}")
    if kept is not None:
        click.echo(f"holds:       {kept}")
    for number, turn in enumerate(turns, 1):
        click.echo(f"\n{number}. {turn.role}, up to {turn.tokens:,} tokens, {when(turn.created)}")
        if turn.text is not None:
            click.echo(seen(turn.text))


def _beginning(store: Store, name: str) -> str:
    turns = store.turns(name)
    return excerpt(turns[0], 40) if turns else ""


def _short(word: str) -> str:
    return word if len(word) <= 12 else f"{word[:8]}..."


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        click.echo(
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _print(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))
