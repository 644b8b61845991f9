"""What a model's name stands for: the one resolver of all verbs and of `griffin.load`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

_BUNDLED = Path(__file__).parent.parent / "data"
OWNER = "google"
RELEASED = (
    "recurrentgemma-2b",
    "recurrentgemma-2b-it",
    "recurrentgemma-9b",
    "recurrentgemma-9b-it",
)


def bundled() -> list[str]:
    """Return the names of the models that ship in this package."""
    return sorted(path.parent.name for path in _BUNDLED.glob("*/config.json"))


def talker() -> str:
    """Return the name of the bundled model to talk with where none is named: the one that answers,
    if it is here."""
    return next((name for name in bundled() if name.endswith("-it")), "nano")


def resolve(name: str | Path) -> str | Path:
    """Return the folder of a bundled model or the repository of a released one, else the name.

    "nano" is the folder in this package, "recurrentgemma-2b-it" is google/recurrentgemma-2b-it. A
    file or folder of that name comes first. ValueError for an empty name.
    """
    if name == "":
        raise ValueError("the model's name is empty; `griffin models` shows which are here")
    if isinstance(name, Path) or Path(name).expanduser().exists():
        return name
    if name in bundled():
        return _BUNDLED / name
    return f"{OWNER}/{name}" if name in RELEASED else name


def meant(name: str) -> str:
    """Return "; did you mean ...?" for a name that is nearly one, else nothing."""
    known = [*bundled(), *RELEASED]
    near = get_close_matches(name.rpartition("/")[2].lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near and near[0] != name else ""
