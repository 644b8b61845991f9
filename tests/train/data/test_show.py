from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import griffin
from griffin.cli.train import command
from griffin.train.data.show import as_text, documents_of_row
from griffin.train.scale.ranks import Ranks

NANO = Path(griffin.__file__).parent / "data" / "nano"


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}?"},
                {"role": "assistant", "content": f"It is {n}."},
            ]
        }
        for n in range(40)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "chat.toml"
    file.write_text(
        f'from = "{NANO}"\n[data]\npacking = "best-fit"\n[[data.source]]\nname = "chats"\n'
        'path = "chats.jsonl"\n[train]\nsteps = 2\nrows = 2\nlength = 64\n'
    )
    return file


def _show(file: Path, *more: str) -> str:
    arguments = [str(file), "--out", str(file.parent / "run"), "--threads", "1", *more]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_rows_are_printed_as_the_model_sees_them(recipe_file: Path) -> None:
    lines = [
        json.loads(line)
        for line in _show(recipe_file, "--show-data", "2", "--json").split("\n")
        if line
    ]
    assert [line["row"] for line in lines] == [0, 1]
    first = lines[0]["documents"][0]
    number = int(first["document"].partition(":")[2]) - 1
    assert first["spans"] == [
        {
            "text": f"<bos><start_of_turn>user\nWhat is {number}?<end_of_turn>\n"
            "<start_of_turn>model\n",
            "counted": False,
        },
        {"text": f"It is {number}.<end_of_turn>", "counted": True},
    ]
    assert lines[0]["documents"][-1]["document"] == ""  # padding
    # a document's last token is a target alone
    real = [d for d in lines[0]["documents"] if d["document"]]
    assert sum(d["tokens"] - 1 for d in real) + lines[0]["documents"][-1]["tokens"] - 1 == 64
    text = _show(recipe_file, "--show-data", "1")
    assert "⟦It is" in text and "── chats.jsonl:" in text and "── padding" in text
    # what was shown is what is trained on
    assert (recipe_file.parent / "run" / "recipe.json").exists()


def test_colour_instead_of_marks() -> None:
    from griffin.text import Tokenizer
    from griffin.train.data.rows import Packer
    from tests.train.data.test_rows import _store

    packer = Packer(_store(40, 30, 9), 16, 0)
    tokenizer = Tokenizer.open(NANO)
    documents = documents_of_row(packer, 0, tokenizer)
    coloured = as_text(0, documents, colour=True)
    assert "⟦" not in coloured.plain and any("green" in str(s.style) for s in coloured.spans)
    assert [d.name for d in documents] == [name for name, _ in packer.documents(0)]
    ids = [id for d in documents for text, _ in d.spans for id in tokenizer.encode(text)]
    assert ids


def test_of_several_ranks_the_first_alone_shows_rows(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranks, "join", lambda *_: Ranks(rank=1, world=2))
    assert _show(recipe_file, "--show-data", "1") == ""
    assert not (recipe_file.parent / "run").exists()
