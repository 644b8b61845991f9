"""Pairs of answers and prompts as rows of data: what they become, and who may read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from griffin.text import Chat, Tokenizer, lesson
from griffin.train.data.encode import Encoded, Encoder
from griffin.train.data.example import PreferenceRow, PromptRow
from griffin.train.data.prepare import RunData, prepare_data
from griffin.train.folder import Claim
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from tests.support.toy_folder import write_toy

ASK = {"role": "user", "content": "Which is it?"}
GOOD, BAD = ({"role": "assistant", "content": said} for said in ("this one", "that"))
ONLINE = {"method": "grpo", "reward": "reward.py:reward"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("base"))


def _prepared(
    base: Path, folder: Path, rows: Sequence[dict[str, Any]], tune: dict[str, Any], **how: Any
) -> RunData:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {"name": "rows", "path": "rows.jsonl"} | how.pop("table", {})
    values = {
        "from": str(base),
        "data": {"source": [table], "held_out": 0.3},
        "train": {"steps": 1},
        "tune": tune,
    }
    recipe = Recipe.from_dict(values, folder)
    return prepare_data(recipe, folder / "run", Reporter(quiet=True), Claim(False, False), **how)


def _pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{number}:", "chosen": f" yes {number}", "rejected": " no"}
        for number in range(count)
    ]


def _text(tokenizer: Tokenizer, document: Encoded, *, counted: bool) -> str:
    return tokenizer.decode(document.ids[document.counted == counted].tolist())


def test_a_pair_of_texts_is_two_documents(base: Path, tmp_path: Path) -> None:
    data = _prepared(base, tmp_path, _pairs(40), {"method": "dpo"})
    [source] = data.sources
    assert source.train_rows == ()
    seen = []
    for store in (source.train, source.held_out):
        assert len(store.paths) % 2 == 0 and len(store.paths)
        for place in range(0, len(store.paths), 2):
            chosen, rejected = store.encoded(place), store.encoded(place + 1)
            row = int(store.paths[place].split(":")[1].removesuffix("/chosen")) - 1
            assert store.paths[place + 1] == f"rows.jsonl:{row + 1}/rejected"
            for document, answer in ((chosen, f" yes {row}"), (rejected, " no")):
                assert document.ids[-1] == data.tokenizer.eos_id and document.counted[-1]
                assert _text(data.tokenizer, document, counted=True).startswith(answer)
                assert f"{row}:" in _text(data.tokenizer, document, counted=False)
            seen.append(row)
    assert sorted(seen) == list(range(40))


def test_of_messages_the_answers_are_counted(base: Path) -> None:
    """As of a conversation: the answer and the end of its turn, of several turns all but those of
    the prompt."""
    tokenizer = Tokenizer.open(base)
    encoder, chat = Encoder(tokenizer), Chat(tokenizer)
    prompt = (ASK, BAD, ASK)
    chosen, rejected = encoder.encode_pair(PreferenceRow(prompt, (GOOD, ASK, GOOD), (BAD,)))
    for document, messages in ((chosen, (*prompt, GOOD, ASK, GOOD)), (rejected, (*prompt, BAD))):
        parts = lesson(chat, messages, first=3)
        assert document.ids.tolist() == [id for ids, _ in parts for id in ids]
        assert document.counted.tolist() == [said for ids, said in parts for _ in ids]
    asked = encoder.encode(PromptRow(prompt))
    assert asked.ids.tolist() == chat.ids(prompt)
    # An answer that is drawn stands where one that is learned from does.
    assert rejected.ids[: len(asked.ids)].tolist() == asked.ids.tolist()
    assert rejected.counted[len(asked.ids) :].all() and not asked.counted.any()


def test_prompts_keep_their_rows(base: Path, tmp_path: Path) -> None:
    """Every column, whatever `columns` reads, and on the side that the prompt is on."""
    rows = [{"prompt": f"{n} + 1 =", "completion": " x", "answer": n + 1} for n in range(30)]
    table = {"table": {"columns": ["prompt"]}}
    data = _prepared(base, tmp_path, rows, ONLINE, **table)
    [source] = data.sources
    sides = ((source.train, source.train_rows), (source.held_out, source.held_out_rows))
    found = []
    for store, kept in sides:
        assert len(kept) == len(store.paths) and len(kept)
        for place, row in enumerate(kept):
            document = store.encoded(place)
            assert data.tokenizer.decode(document.ids[1:].tolist()) == row["prompt"]
            assert not document.counted.any()
            found.append(row)
        assert kept[-1] == kept[len(kept) - 1] and kept[:2] == (kept[0], kept[1])
    assert sorted(found, key=lambda row: row["answer"]) == rows


def test_by_several_processes_and_again_they_are_the_same(base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"prompt {n}", "answer": n} for n in range(700)]
    found = []
    for workers in (1, 2):
        (folder := tmp_path / str(workers)).mkdir()
        data = _prepared(base, folder, rows, ONLINE, workers=workers)
        [source] = data.sources
        found.append((np.asarray(source.train.ids), list(source.train_rows)))
    assert (found[0][0] == found[1][0]).all() and found[0][1] == found[1][1]


def test_one_prompt_is_on_one_side(base: Path, tmp_path: Path) -> None:
    """Ten pairs each: none is held out whose prompt is trained on."""
    rows = [
        {"prompt": f"{n}?", "chosen": f" yes {k}", "rejected": f" no {k} {n}"}
        for n in range(30)
        for k in range(10)
    ]
    [source] = _prepared(base, tmp_path, rows, {"method": "dpo"}).sources

    def prompts(paths: Sequence[str]) -> set[int]:
        return {(int(path.split(":")[1].split("/")[0]) - 1) // 10 for path in paths}

    train, held_out = prompts(source.train.paths), prompts(source.held_out.paths)
    assert not train & held_out and len(train) + len(held_out) == 30 and len(held_out) > 2


def test_prompts_that_begin_alike_are_no_copies(base: Path, tmp_path: Path) -> None:
    """A long instruction that all share would else leave one to hold out."""
    long = "Answer in one word, and be as polite as you can be to whoever asks you this.\n"
    rows = [{"prompt": f"{long}{n}?"} for n in range(60)]
    [source] = _prepared(base, tmp_path, rows, ONLINE).sources
    assert len(source.held_out.paths) > 5


def test_what_says_nothing_is_left_out(base: Path, tmp_path: Path) -> None:
    rows = [*_pairs(9), {"prompt": "a", "chosen": "same", "rejected": "same"}]
    [source] = _prepared(base, tmp_path, rows, {"method": "dpo"}).sources
    assert len(source.train.paths) + len(source.held_out.paths) == 18


@pytest.mark.parametrize(
    ("tune", "row", "said"),
    [
        (
            {"method": "dpo"},
            {"messages": [ASK, GOOD]},
            "messages are for training and tune.method 'full', 'lora' or 'state'; prompt, chosen"
            " and rejected are read here",
        ),
        ({"method": "dpo"}, {"text": "a"}, "text is for training and"),
        ({"method": "dpo"}, {"prompt": "a"}, "for tune.method 'jbond', 'grpo' or 'rloo'"),
        (ONLINE, {"prompt": "a", "completion": "b"}, r"of which columns = \['prompt'\] in"),
        (ONLINE, {"prompt": "a", "chosen": "b", "rejected": "c"}, "is for tune.method 'dpo'; prom"),
        (
            {"method": "lora"},
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "chosen and rejected is for tune.method 'dpo'; text, messages, or prompt and completion"
            " are read here",
        ),
    ],
)
def test_what_does_not_fit_the_method_is_refused(
    base: Path, tmp_path: Path, tune: dict[str, Any], row: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=f"rows.jsonl:1: .*{said}"):
        _prepared(base, tmp_path, [row], tune, skip_bad=True)


def test_a_file_of_text_is_no_row(base: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"a\.txt: text is for training"):
        _prepared(base, tmp_path, _pairs(3), {"method": "dpo"}, table={"path": "a.txt"})


def test_rows_that_are_lost_are_said(base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"prompt {n}"} for n in range(9)]
    _prepared(base, tmp_path, rows, ONLINE)
    kept = tmp_path / "run" / "data" / "rows" / "train" / "rows.jsonl"
    kept.write_bytes(kept.read_bytes()[:-5])
    recipe = Recipe.from_dict(
        {
            "from": str(base),
            "data": {"source": [{"name": "rows", "path": "rows.jsonl"}], "held_out": 0.3},
            "train": {"steps": 1},
            "tune": ONLINE,
        },
        tmp_path,
    )
    with pytest.raises(ValueError, match="its index says"):
        prepare_data(recipe, tmp_path / "run", Reporter(quiet=True), Claim(True, True))
