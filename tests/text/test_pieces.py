"""A long text cut into pieces has the ids of the whole."""

from __future__ import annotations

import codecs
import io
import json
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, trainers

from griffin.text import Tokenizer
from griffin.text import pieces as module
from griffin.text.pieces import Cutter, Pieces, TextSource
from griffin.train.data.bpe import CONTROL_TOKENS
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Tokenizer:
    return Tokenizer.open(write_toy(tmp_path_factory.mktemp("ours") / "toy"))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Tokenizer:
    """Gemma's layout: one word, spaces as U+2581, merges across spaces, line breaks and
    everything."""
    made = Library(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    alphabet = [f"<0x{value:02X}>" for value in range(256)]
    lines = Path(json.__file__).read_text().splitlines(keepends=True)
    text = ["".join(lines[n : n + 3]) for n in range(len(lines))]
    made.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=[*CONTROL_TOKENS, *alphabet],
            show_progress=False,
            max_token_length=12,
        ),
    )
    spec = json.loads(made.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] in CONTROL_TOKENS]
    path = tmp_path_factory.mktemp("gemma") / "tokenizer.json"
    path.write_text(json.dumps(spec))
    return Tokenizer.open(path)


def texts() -> list[str]:
    rng = random.Random(0)
    code = Path(codecs.__file__).read_text()
    noise = "".join(rng.choice("ab \n\t▁é漢😀<>/0=") for _ in range(40_000))
    crlf = code.replace("\n", "\r\n")
    prose = "Sentence after sentence without any line break. " * 900
    return [code, noise, crlf, prose, "<end_of_turn> <bos>" * 2000, "short", ""]


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("which", ["ours", "gemma"])
def test_ids_are_those_of_the_whole(which, number, request, monkeypatch):
    monkeypatch.setattr(module, "_LEAST", 2000)
    tokenizer = request.getfixturevalue(which)
    text = texts()[number]
    source = [text[n : n + 777] for n in range(0, len(text), 777)]
    pieces = Pieces(tokenizer, iter(source))
    made = list(pieces)
    whole = tokenizer.encode(text) if text else []
    assert [i for ids in made for i in ids] == whole
    assert pieces.hard_cuts == 0 and pieces.characters == len(text)
    if len(text) > 10_000:
        assert len(made) > 5


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("ab\n ▁\t.(=0é😀"), min_size=300, max_size=600))
def test_any_text_may_be_cut_where_the_cutter_says(text, gemma):
    place = Cutter(gemma).cut(text)
    if place is not None:
        whole = gemma.encode(text, bos=False)
        assert (
            gemma.encode(text[:place], bos=False) + gemma.encode(text[place:], bos=False) == whole
        )


def test_a_text_without_a_safe_place_is_cut_all_the_same_and_says_so(ours, monkeypatch):
    monkeypatch.setattr(module, "_LEAST", 500)
    monkeypatch.setattr(module, "_MOST", 2000)
    monkeypatch.setattr(Cutter, "_holds", lambda *_: False)
    pieces = Pieces(ours, iter(["x = 1\n" * 500] * 4))
    ids = [i for part in pieces for i in part]
    assert pieces.hard_cuts > 0
    assert ours.decode(ids) == "x = 1\n" * 2000


@given(raw=st.binary(max_size=60), block=st.integers(1, 7))
def test_bytes_that_are_no_text_are_counted(raw, block):
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "BLOCK", block)
    told = []
    source = TextSource(io.BytesIO(raw), told.append)
    text = "".join(source)
    patch.undo()
    assert text == raw.decode("utf-8", errors="replace")
    assert source.read == len(raw) and (told[-1] if raw else 0) == len(raw)
    assert source.replaced == text.count("\ufffd") - raw.count("\ufffd".encode())


def test_memory_does_not_grow_with_the_text(ours):
    class Endless(io.RawIOBase):
        def __init__(self, blocks: int) -> None:
            self.left = blocks

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return (b"def f(x):\n    return x + 1\n" * 3000)[:size] if self.left >= 0 else b""

    def peak(blocks: int) -> int:
        tracemalloc.start()
        count = sum(len(ids) for ids in Pieces(ours, iter(TextSource(Endless(blocks)))))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count > 6000 * blocks
        return most

    peak(2)
    short, long = peak(2), peak(10)
    assert long < short + 200_000, f"{short:,} bytes for 2 blocks, {long:,} for 10"
