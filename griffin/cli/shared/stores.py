"""Where conversations are kept, unless `--store` says otherwise, and words for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from griffin.cli.shared.seen import harmless

if TYPE_CHECKING:
    from griffin.model import GriffinConfig
    from griffin.sessions import SessionInfo, Store, Turn

F = TypeVar("F", bound=Callable[..., Any])


def default_store() -> Path:
    """Return the user's own store: below $XDG_DATA_HOME, or ~/.local/share if that is unset."""
    data = os.environ.get("XDG_DATA_HOME")
    base = Path(data) if data and Path(data).is_absolute() else Path.home() / ".local" / "share"
    return base / "griffin" / "sessions"


def store_option(function: F) -> F:
    """Add --store to a command."""
    return click.option(
        "--store",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Folder of kept conversations [default: griffin/sessions in the user's data folder].",
    )(function)


def open_store(folder: Path | None, *, network: bool = False, make: bool = True) -> Store:
    """Open the store in a folder, the user's own if None is given.

    make: a folder that is not there; without it that is a ValueError.
    OSError, with the options that help, where the folder cannot be made or written.
    """
    if folder is not None and not make and not folder.exists():
        raise ValueError(f"--store {folder}: there is no such folder")
    from griffin.sessions import Store

    place = default_store() if folder is None else folder
    try:
        return Store(place, network=network)
    except OSError as error:
        raise OSError(
            f"no conversation can be kept in {place}: {error.strerror or error}; name another"
            " folder with --store, or keep none: `griffin chat --no-persist`,"
            " `griffin serve --no-store`"
        ) from None


def server_store() -> Path:
    """Return the folder that `griffin serve` keeps conversations in, where it is not told one."""
    return default_store().parent / "server"


def when(seconds: float) -> str:
    """Return a time for people, of the local clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def verbatim(tokens: int, config: GriffinConfig) -> int:
    """Return how many of so many tokens lie in a model's window, word for word."""
    from griffin.engine.pieces import window

    return len(window(config, tokens))


def gist(tokens: int, config: GriffinConfig) -> str:
    """Say what is left of so many tokens in a model's state."""
    return f"the gist of {tokens:,} tokens; the last {verbatim(tokens, config):,} verbatim"


def state_file(what: str) -> Path | None:
    """Return the file of this name, or with .state after it; None if there is neither."""
    for path in (Path(what), Path(f"{what}.state")):
        if path.is_file():
            return path
    if "/" in what or what.endswith((".state", ".safetensors")):
        raise ValueError(f"there is no state file {what}")
    return None


def about_tuned(path: Path) -> dict[str, Any]:
    """Return what a tuned state's file says of itself, after checking all of it."""
    from griffin.adapters import open_tuned

    tuned = open_tuned(path)
    belongs = {"weights": tuned.weights, "adapter": tuned.adapter or "none"}
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "kind": "tuned state",
        "model": tuned.name,
        "keys": tuned.keys,
        "digest": tuned.digest(),
        "fingerprint": belongs,
    }


def model_of(info: SessionInfo) -> str:
    """Return the name of a conversation's model; where none was noted, of its weights' digest the
    beginning. Of a folder its last part is enough."""
    name = str(info.settings.get("model", ""))
    return Path(name).name if Path(name).is_absolute() else name or info.fingerprint.weights[:8]


def excerpt(turn: Turn, width: int = 60) -> str:
    """Return the beginning of what was said in a turn, on one line."""
    if turn.text is None:
        return f"({turn.role})"
    line = harmless(" ".join(turn.text.split()))
    return line if len(line) <= width else line[: width - 3] + "..."
