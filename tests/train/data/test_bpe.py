from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from griffin.text import Tokenizer as OurTokenizer
from griffin.train.data.bpe import CONTROL_TOKENS, FIRST_PIECE, open_bpe, save_bpe, train_bpe
from griffin.train.data.encode import Encoder
from griffin.train.data.example import TextRow

_CODE = [
    f"class Thing{n}:\n    def __init__(self, value):\n        self.value = value\n\n"
    f"    def total(self, other):\n        return self.value + other.value * {n * 12345}\n"
    for n in range(30)
]


def _opened(tokenizer: Tokenizer) -> OurTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        save_bpe(tokenizer, Path(folder))
        return OurTokenizer.open(folder)


_TOKENIZER = train_bpe(_CODE, 480)
OPENED = _opened(_TOKENIZER)
_PARTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(
        [
            "    ",
            "\n",
            "\r\n",
            "\t",
            "▁",
            "_",
            "self",
            "<eos>",
            "<0x41>",
            "é",
            "e\u0301",
            "🦅",
            "\x00",
            " .x",
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PARTS, max_size=12).map("".join))
def test_what_is_encoded_decodes_to_itself(text: str) -> None:
    ids = Encoder(OPENED).encode(TextRow(text)).ids
    assert ids[0] == 2 and ids[-1] == 1
    assert _TOKENIZER.decode(ids[1:-1].tolist(), skip_special_tokens=False) == text


@pytest.mark.parametrize("text", [*CONTROL_TOKENS, "<0x41>", "a<eos>b", "x = '<end_of_turn>'\n"])
def test_control_tokens_in_a_text_stay_text(text: str) -> None:
    inner = Encoder(OPENED).encode(TextRow(text)).ids[1:-1]
    assert (inner >= len(CONTROL_TOKENS)).all()
    assert len(inner) > 1


def test_layout_is_gemmas() -> None:
    names = [_TOKENIZER.id_to_token(index) for index in range(_TOKENIZER.get_vocab_size())]
    assert names[:7] == [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        "<start_of_turn>",
        "<end_of_turn>",
    ]
    assert names[7 : 7 + 256] == [f"<0x{value:02X}>" for value in range(256)]
    assert FIRST_PIECE == 263
    assert len(set(names)) == len(names) <= 480
    assert "\n        " in names and " self" in names  # indentation and words are pieces
    assert all(sum(c.isdigit() for c in name) <= 1 for name in names[FIRST_PIECE:])


def test_bytes_only_where_no_piece_is() -> None:
    assert [_TOKENIZER.id_to_token(i) for i in Encoder(OPENED).encode(TextRow("é")).ids[1:-1]] == [
        "<0xC3>",
        "<0xA9>",
    ]


def test_the_saved_file_adds_bos_once_and_knows_control_tokens(tmp_path: Path) -> None:
    save_bpe(_TOKENIZER, tmp_path)
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = again.encode("self<end_of_turn>").ids
    assert ids[0] == 2 and ids[-1] == 6 and 2 not in ids[1:]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["bos_token"] == "<bos>"


def test_training_is_deterministic() -> None:
    # Of characters that are as frequent as each other more than have a place.
    rare = [chr(code) for code in range(0x400, 0x480)]
    learned = {train_bpe([*_CODE, *rare, "ÿÿ"], 480).to_str() for _ in range(4)}
    assert len(learned) == 1
    vocab = json.loads(learned.pop())["model"]["vocab"]
    assert [each for each in rare if each in vocab] == rare[:30] and "ÿ" in vocab
    with pytest.raises(ValueError, match="twice"):
        train_bpe(iter(_CODE), 480)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves no room for pieces"):
        train_bpe(_CODE, 300)
    with pytest.raises(ValueError, match="no tokenizer at"):
        open_bpe(tmp_path / "tokenizer.json")
    (tmp_path / "torn.json").write_text('{"version"')
    with pytest.raises(ValueError, match=r"torn\.json is not a readable tokenizer"):
        open_bpe(tmp_path / "torn.json")
    bare = json.loads(_TOKENIZER.to_str().replace("<bos>", "<begin>"))
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    with pytest.raises(ValueError, match="no token <bos>"):
        open_bpe(tmp_path / "bare.json")
