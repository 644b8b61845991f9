"""A BPE vocabulary for the documents at hand, laid out as Gemma's: control tokens, bytes, pieces.

Spaces stay spaces inside the pieces (Gemma rewrites them as U+2581 and so cannot tell the two
apart): what is encoded decodes to itself, whatever it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

from griffin.text.text_steps import PIECES
from griffin.text.tokenizer_json import read_spec
from griffin.train.files import write_text

CONTROL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
PAD, EOS, BOS, UNK = range(4)
_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
FIRST_PIECE = len(CONTROL_TOKENS) + len(_BYTES)

_PIECES = Regex(PIECES)
_ALPHABET = [chr(code) for code in range(32, 127)] + ["\n", "\t"]
# Characters beyond the most frequent ones are spelt in bytes instead of taking a place in a small
# vocabulary.
_ALPHABET_LIMIT = 128
SMALLEST = FIRST_PIECE + _ALPHABET_LIMIT  # entries of a vocabulary


def train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int = 2) -> Tokenizer:
    """Learn a vocabulary of at most `vocab_size` entries from texts, deterministically.

    texts: gone through twice, so a list or the like, and no iterator.
    Ids 0 to 6 are the control tokens, the next 256 the bytes, then come characters and learned
    pieces. The result adds no token by itself except <bos> through its post-processor
    (`add_special_tokens=True`). Raises ValueError if vocab_size leaves no room for pieces, and for
    an iterator.
    """
    if iter(texts) is texts:
        raise ValueError("texts are gone through twice; give a list of them, not an iterator")
    check_room(vocab_size)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(_PIECES, "isolated")
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size - FIRST_PIECE,
            min_frequency=min_frequency,
            initial_alphabet=(alphabet := _alphabet(texts)),
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    model = json.loads(learner.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    # The trainer would make the byte tokens special, and special tokens are found in text; so they
    # are put in here. No learned piece can spell one: letters, digits and signs never share a
    # piece.
    if clash := set(pieces) & {*CONTROL_TOKENS, *_BYTES}:
        raise AssertionError(f"learned pieces spell control tokens: {sorted(clash)}")
    vocab = {piece: index for index, piece in enumerate([*CONTROL_TOKENS, *_BYTES, *pieces])}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_PIECES, "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", BOS)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    )
    return tokenizer


def check_room(vocab_size: int) -> None:
    """Raise ValueError if a vocabulary of this size has no room for pieces that are learned."""
    if vocab_size < SMALLEST:
        raise ValueError(
            f"vocab_size={vocab_size} leaves no room for pieces beside {FIRST_PIECE} control and"
            f" byte tokens and {_ALPHABET_LIMIT} characters; use at least {SMALLEST}"
        )


def _alphabet(texts: Iterable[str]) -> list[str]:
    """Return the characters that have a place of their own: the usual ones, then the most frequent.

    The trainer would choose among characters that are as frequent by chance, and in no two runs
    alike.
    """
    counts = Counter[str]()
    for text in texts:
        counts.update(text)
    others = sorted(counts.keys() - {*_ALPHABET}, key=lambda each: (-counts[each], each))
    return [*_ALPHABET, *others[: _ALPHABET_LIMIT - len(_ALPHABET)]]


def open_bpe(path: Path) -> Tokenizer:
    """Read a `tokenizer.json` for training; ValueError if unreadable or without <bos>, <eos>."""
    if not path.exists():
        raise ValueError(f"no tokenizer at {path}")
    try:
        tokenizer = Tokenizer.from_str(json.dumps(read_spec(path)))
    except Exception as error:  # the library raises plain Exception for everything it cannot parse
        raise ValueError(f"{path} is not a readable tokenizer.json: {error}") from error
    for token in ("<bos>", "<eos>"):
        if tokenizer.token_to_id(token) is None:
            raise ValueError(f"{path} has no token {token}; training needs <bos> and <eos>")
    return tokenizer


def save_bpe(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into a folder that exists, each whole.

    Raises OSError if the disk is full.
    """
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False) + "\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
    }
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
