"""Defaults of the user's own for the options of verbs, in one file that the command line reads."""

from __future__ import annotations

import json
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from griffin.outputs import whole_file

# key -> its option, and what it is for. The options are those of the verbs that run a model.
KEYS = {
    "model": ("--model", "the model to use"),
    "quantize": ("--quantize", "int8 or int4"),
    "store": ("--store", "folder of kept conversations"),
    "threads": ("--threads", "CPU threads"),
}
VERBS = ("generate", "chat", "serve", "batch", "state", "ask", "watch")


def config_path() -> Path:
    """Return the file: config.toml in the user's configuration folder for griffin."""
    return Path(click.get_app_dir("griffin")) / "config.toml"


def read_config() -> dict[str, Any]:
    """Return what the file says, nothing without one; ValueError, naming it, for a wrong one."""
    path = config_path()
    if not path.is_file():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    for key, value in found.items():
        check_entry(key, value, str(path))
    return found


def check_entry(key: str, value: Any, where: str) -> None:
    """Raise ValueError for a key that is none, or a value of another kind."""
    if key not in KEYS:
        near = get_close_matches(key, KEYS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}"
        raise ValueError(f"{where}: there is no setting {key!r}; {meant}")
    kind = int if key == "threads" else str
    if not isinstance(value, kind) or isinstance(value, bool) or value in ("", 0):
        wanted = "a number of at least 1" if kind is int else "a text"
        raise ValueError(f"{where}: {key} must be {wanted}, not {value!r}")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{where}: {key} has characters that cannot be written: {value!r}")


def write_config(values: dict[str, Any]) -> Path:
    """Write the file whole, or remove it where nothing is left; return its path."""
    path = config_path()
    if not values:
        path.unlink(missing_ok=True)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    with whole_file(path) as beside:
        beside.write_text("".join(lines), encoding="utf-8")
    return path


def own_defaults(command: click.Command) -> dict[str, Any]:
    """Return the file's values for a command's options by parameter, as click's default_map has
    them: a group's commands are maps of their own."""
    own = read_config()
    found: dict[str, Any] = {
        parameter.name: own[key]
        for parameter in command.params
        for key, (option, _) in KEYS.items()
        if key in own and option in parameter.opts and parameter.name is not None
    }
    for name, inner in getattr(command, "commands", {}).items():
        found[name] = own_defaults(inner)
    return found


def show_config(as_json: bool) -> None:
    """Print the file's path and what it says."""
    own = read_config()
    if as_json:
        click.echo(json.dumps({"path": str(config_path()), **own}))
        return
    click.echo(f"{config_path()}{'' if own else ' (not there: nothing is set)'}")
    for key, (option, meaning) in KEYS.items():
        said = json.dumps(own[key]) if key in own else f"not set: {meaning}"
        click.echo(f"  {key:9} {said}  ({option})")
