"""Which documents there are, and on which side each is."""

from __future__ import annotations

from pathlib import Path

import pytest

from griffin.train.data.document import NamedExample
from griffin.train.data.example import words_of
from griffin.train.data.source import open_sources
from griffin.train.data.split import fate_of
from griffin.train.data.survey import Survey, survey
from griffin.train.recipe import DataRecipe


def _write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")


def _survey(
    recipe: DataRecipe, folder: Path
) -> tuple[Survey, list[NamedExample], list[NamedExample]]:
    sources = open_sources(recipe, folder)
    seen = survey(sources, recipe.held_out, recipe.max_document_bytes, folder / ".survey")
    sides = [[each for _, each in seen.documents(sources, held)] for held in (False, True)]
    assert len(seen.held) == len(sides[0]) + len(sides[1])
    return seen, sides[0], sides[1]


def _files(root: Path, **changes: object) -> DataRecipe:
    return DataRecipe(source="files", root=str(root), **changes)  # pyright: ignore


def _names(root: Path, **changes: object) -> set[str]:
    _, train, held_out = _survey(_files(root, held_out=0.65, **changes), root)
    return {document.name for document in (*train, *held_out)}


def test_split_depends_on_the_path_alone(tmp_path: Path) -> None:
    _write(tmp_path, *(f"a{n}.py" for n in range(30)))
    recipe = _files(tmp_path, held_out=0.3)
    _, _, before = _survey(recipe, tmp_path)
    _write(tmp_path, *(f"deep/b{n}.py" for n in range(30)))
    _, train, after = _survey(recipe, tmp_path)
    assert {d.name for d in before} == {d.name for d in after if "/" not in d.name}
    assert {d.name for d in train}.isdisjoint(d.name for d in after)
    assert all((fate_of(d.name.encode()) < 0.3) == (d in after) for d in (*train, *after))


def test_patterns(tmp_path: Path) -> None:
    _write(
        tmp_path,
        "a.py",
        "b.txt",
        "x/c.py",
        "x/test/d.py",
        "test/e.py",
        "x/y/f.py",
        "xtest/g.py",
        "(1).py",
    )
    _write(tmp_path, "runs/x/run.lock", "runs/x/g.py", "runs/x/data/h.py")  # a run's own folder
    everything = {"a.py", "x/c.py", "x/test/d.py", "test/e.py", "x/y/f.py", "xtest/g.py", "(1).py"}
    assert _names(tmp_path) == everything
    assert _names(tmp_path, exclude=("**/test/**",)) == everything - {"x/test/d.py", "test/e.py"}
    assert _names(tmp_path, include=("x/*.py", "?.txt", "xt*/*", "(1).py")) == {
        "x/c.py", "b.txt", "xtest/g.py", "(1).py",
    }  # fmt: skip
    assert _names(tmp_path, include=("x/**",)) == {"x/c.py", "x/test/d.py", "x/y/f.py"}


def test_unfit_files_are_counted(tmp_path: Path) -> None:
    _write(tmp_path, *(f"a{n}.py" for n in range(9)))
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.py").write_bytes(b"a\0b")
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / "mark.py").write_bytes(b"\xef\xbb\xbfx = 1\r\n")
    (tmp_path / "long.py").write_text("x" * 200)
    recipe = _files(tmp_path, held_out=0.5, max_document_bytes=100)
    seen, train, held_out = _survey(recipe, tmp_path)
    assert seen.left_out == (
        "left out: 1 not UTF-8, 1 empty, 1 with NUL bytes; 1 long texts cut into pieces"
    )
    assert len(train) + len(held_out) == 12
    [marked] = [d for d in (*train, *held_out) if d.name == "mark.py"]
    assert words_of(marked.example) == "x = 1\r\n"


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is neither a folder nor a file"):
        open_sources(DataRecipe(source="files", root="missing"), tmp_path)
    with pytest.raises(ValueError, match=r"0 documents below .* it takes one to train on"):
        open_sources(DataRecipe(source="files"), tmp_path)
    (tmp_path / "empty.py").touch()
    with pytest.raises(ValueError, match=r"data: .* is empty: there is nothing"):
        _survey(_files(tmp_path), tmp_path)
    (tmp_path / "empty.py").write_text("a,b\n")  # too short to be trained on and held out
    with pytest.raises(
        ValueError, match=rf"1 document in {tmp_path} .*nothing left out\); .* cannot be cut"
    ):
        _survey(_files(tmp_path), tmp_path)


def test_standard_library(tmp_path: Path) -> None:
    recipe = DataRecipe(include=("json/*.py", "textwrap.py", "site-packages/**/*.py"), held_out=0.5)
    _, train, held_out = _survey(recipe, tmp_path)
    texts = {d.name: words_of(d.example) for d in (*train, *held_out)}
    assert texts.keys() >= {"json/decoder.py", "textwrap.py"}
    assert not any("site-packages" in path for path in texts)
    assert "def dedent(" in texts["textwrap.py"]


@pytest.mark.parametrize("ends", ["\n", "", "é"])
@pytest.mark.parametrize("size", [90, 1_000, 5_000])
def test_a_single_long_file_is_pieces_of_both_sides(tmp_path: Path, ends: str, size: int) -> None:
    text = "".join(f"{number} wörter{ends}" for number in range(size))
    (tmp_path / "input.txt").write_text(text)
    recipe = _files(tmp_path, include=("*.txt",), max_document_bytes=2_000)
    seen, train, held_out = _survey(recipe, tmp_path)
    assert train and held_out
    pieces = sorted((*train, *held_out), key=lambda d: int(d.name.partition("#")[2]))
    said = [words_of(piece.example) for piece in pieces]
    assert "".join(said) == text
    assert all(0 < len(piece.encode()) <= 2_000 for piece in said)
    assert len({piece.name for piece in pieces}) == len(pieces) >= 2
    if ends == "\n":
        assert all(piece.endswith("\n") for piece in said)
    assert _survey(recipe, tmp_path)[0].held.tolist() == seen.held.tolist()


def test_a_side_is_never_empty_where_there_are_two(tmp_path: Path) -> None:
    _write(tmp_path, "a.py", "b.py", "c.py")
    for share in (1e-9, 1 - 1e-9):
        _, train, held_out = _survey(_files(tmp_path, held_out=share), tmp_path)
        assert {len(train), len(held_out)} == {1, 2}


def test_rows_are_known_by_what_they_say(tmp_path: Path) -> None:
    """A row's side does not depend on its place; copies are on one side."""
    rows = [f'{{"text": "row {n}"}}\n' for n in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    tables = ({"name": "rows", "path": str(tmp_path / "a.jsonl")},)
    recipe = DataRecipe(source=tables, held_out=0.3)  # pyright: ignore[reportArgumentType]
    _, _, before = _survey(recipe, tmp_path)
    (tmp_path / "a.jsonl").write_text("".join(reversed(rows)) + '{"text": "new"}\n' + rows[3])
    _, train, after = _survey(recipe, tmp_path)
    texts = {words_of(d.example) for d in after}
    assert {words_of(d.example) for d in before} == texts - {"new"} and len(before) > 5
    assert texts.isdisjoint(words_of(d.example) for d in train)
