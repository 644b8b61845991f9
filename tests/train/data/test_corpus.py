from __future__ import annotations

from pathlib import Path

import pytest

from griffin.train.data.corpus import open_corpus
from griffin.train.recipe import DataRecipe


def _write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")


def _names(root: Path, **changes: object) -> set[str]:
    recipe = DataRecipe(source="files", root=str(root), held_out=0.65, **changes)  # pyright: ignore
    corpus = open_corpus(recipe)
    return {document.path for document in (*corpus.train, *corpus.held_out)}


def test_split_depends_on_the_path_alone(tmp_path: Path) -> None:
    _write(tmp_path, *(f"a{n}.py" for n in range(30)))
    recipe = DataRecipe(source="files", root=str(tmp_path), held_out=0.3)
    before = open_corpus(recipe)
    _write(tmp_path, *(f"deep/b{n}.py" for n in range(30)))
    after = open_corpus(recipe)
    assert {d.path for d in before.held_out} == {
        d.path for d in after.held_out if "/" not in d.path
    }
    assert {d.path for d in after.train}.isdisjoint(d.path for d in after.held_out)
    # A value written down once: the split of a released model must never change.
    fates = {d.path: d.fate for d in (*before.train, *before.held_out)}
    assert fates["a0.py"] == pytest.approx(0.00061232, abs=1e-7)


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
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / "long.py").write_text("x" * 200)
    recipe = DataRecipe(source="files", root=str(tmp_path), held_out=0.5, max_document_bytes=100)
    corpus = open_corpus(recipe)
    assert corpus.left_out == ("left out: 1 empty, 1 not UTF-8; 1 long files cut into pieces")
    assert len(corpus.train) + len(corpus.held_out) == 11


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        open_corpus(DataRecipe(source="files", root="missing"), tmp_path)
    with pytest.raises(ValueError, match=r"0 documents below .* it takes one to train on"):
        open_corpus(DataRecipe(source="files"), tmp_path)


def test_standard_library() -> None:
    corpus = open_corpus(
        DataRecipe(include=("json/*.py", "textwrap.py", "site-packages/**/*.py"), held_out=0.5)
    )
    paths = [document.path for document in (*corpus.train, *corpus.held_out)]
    assert {"json/decoder.py", "textwrap.py"} <= set(paths)
    assert not any("site-packages" in path for path in paths)
    document = next(d for d in (*corpus.train, *corpus.held_out) if d.path == "textwrap.py")
    assert "def dedent(" in document.read()
    assert document.size == len(document.read().encode())


@pytest.mark.parametrize("ends", ["\n", "", "é"])
@pytest.mark.parametrize("size", [90, 1_000, 5_000])
def test_a_single_long_file_is_pieces_of_both_sides(tmp_path: Path, ends: str, size: int) -> None:
    text = "".join(f"{number} wörter{ends}" for number in range(size))
    (tmp_path / "input.txt").write_text(text)
    recipe = DataRecipe(
        source="files", root=str(tmp_path), include=("*.txt",), max_document_bytes=2_000
    )
    corpus = open_corpus(recipe)
    assert corpus.train and corpus.held_out
    pieces = sorted((*corpus.train, *corpus.held_out), key=lambda document: document.start)
    assert "".join(piece.read() for piece in pieces) == text
    assert all(0 < piece.size <= 2_000 for piece in pieces)
    assert len({piece.path for piece in pieces}) == len(pieces) >= 2
    if ends == "\n":
        assert all(piece.read().endswith("\n") for piece in pieces)
    assert corpus == open_corpus(recipe)


def test_a_side_is_never_empty_where_there_are_two(tmp_path: Path) -> None:
    _write(tmp_path, "a.py", "b.py", "c.py")
    for share in (1e-9, 1 - 1e-9):
        recipe = DataRecipe(source="files", root=str(tmp_path), held_out=share)
        corpus = open_corpus(recipe)
        assert {len(corpus.train), len(corpus.held_out)} == {1, 2}
