"""A run's data: corpus, tokenizer and encoded documents, made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from griffin.checkpoints import COMPANIONS, copy_companions
from griffin.text import Tokenizer, find_tokenizer
from griffin.train.data.bpe import open_bpe, save_bpe, train_bpe
from griffin.train.data.corpus import Corpus, open_corpus
from griffin.train.data.store import TokenStore, encode_documents, open_store
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter


@dataclass(frozen=True)
class RunData:
    """Hold the tokenizer and the encoded documents of both sides of the split."""

    tokenizer: Tokenizer
    train: TokenStore
    held_out: TokenStore


def prepare_data(
    recipe: Recipe,
    out: Path,
    reporter: Reporter,
    reuse: bool,
    check: Callable[[], None] = lambda: None,
) -> RunData:
    """Return a run's data, encoding the documents the first time.

    reuse: take what an earlier call left in `out`, whatever has become of the documents since: a
           resumed run trains on what it began with.
    check: called between documents; an exception of its own ends the work.
    Raises ValueError if tokenizer and model do not fit.
    """
    folder = out / "data"
    train, held_out = folder / "train.bin", folder / "held_out.bin"
    corpus = None if reuse else open_corpus(recipe.data, recipe.folder)
    if corpus is not None:
        folder.mkdir(parents=True, exist_ok=True)
        reporter.say(
            f"{len(corpus.train)} documents to train on ({corpus.train_bytes / 1e6:.1f} MB), "
            f"{len(corpus.held_out)} held out ({corpus.held_out_bytes / 1e6:.2f} MB), "
            f"{corpus.left_out}; {corpus.overlap} stand in training"
        )
        _make_tokenizer(recipe, corpus, out)
    tokenizer = Tokenizer.open(out)
    _check_size(tokenizer, recipe)
    if corpus is not None:
        encode_documents(corpus.train, tokenizer, train, check)
        encode_documents(corpus.held_out, tokenizer, held_out, check)
    data = RunData(tokenizer, open_store(train), open_store(held_out))
    tokens, size = data.train.num_pairs, data.train.num_bytes
    reporter.say(
        f"{tokens:,} training tokens, {size / tokens:.2f} bytes each; "
        f"tokenizer {tokenizer.digest[:12]}"
    )
    return data


def _make_tokenizer(recipe: Recipe, corpus: Corpus, out: Path) -> None:
    """Leave a run's tokenizer in its folder: the checkpoint's, one that is given, or a new one."""
    for left in COMPANIONS:  # by another recipe, which was found impossible
        (out / left).unlink(missing_ok=True)
    if recipe.base:
        weights = recipe.open_base().folder
        for folder in dict.fromkeys((find_tokenizer(weights), weights)):
            copy_companions(folder, out)
    elif recipe.tokenizer.path:
        save_bpe(open_bpe(recipe.folder / recipe.tokenizer.path), out)
    else:
        texts = (document.read() for document in corpus.train)
        save_bpe(train_bpe(texts, recipe.model.vocab_size, recipe.tokenizer.min_frequency), out)


def _check_size(tokenizer: Tokenizer, recipe: Recipe) -> None:
    if (size := tokenizer.vocab_size) > recipe.model.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} entries, the model's vocabulary {recipe.model.vocab_size}; "
            f"set model.vocab_size={size} or more"
        )
