"""The recipes that ship in this package, by name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "data" / "recipes"


def recipes() -> dict[str, str]:
    """Return name -> what it trains: the first sentence of the recipe's own comment."""
    files = sorted(_FOLDER.glob("*.toml"), key=lambda path: path.stem)
    return {path.stem: _first_sentence(path) for path in files}


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe: a path, or the name of a bundled one, such as "nano".

    A file of that name comes first. Raises ValueError, with what there is, where there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = list(recipes())
    if str(name) in known:
        return _FOLDER / f"{name}.toml"
    near = get_close_matches(path.stem.lower(), known, n=1)
    raise ValueError(
        f"no recipe {str(name)!r}: it is no file, and the bundled ones are {', '.join(known)}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def _first_sentence(path: Path) -> str:
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words.append(line.removeprefix("#").strip())
        if line.endswith((".", "#")) or not line.startswith("#"):
            break
    return " ".join(words).partition(". ")[0].removesuffix(".")
