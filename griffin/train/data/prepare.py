"""A run's data: documents, tokenizer and tokens of all sources, made once and kept."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from griffin.checkpoints import COMPANIONS, copy_companions
from griffin.text import Tokenizer, find_tokenizer
from griffin.train.data.bpe import check_room, open_bpe, save_bpe, train_bpe
from griffin.train.data.encode import EncodeBlocks
from griffin.train.data.example import words_of
from griffin.train.data.journal import JOURNAL, Journal
from griffin.train.data.row_columns import ROWS, open_rows
from griffin.train.data.source import DataSource, open_sources
from griffin.train.data.split import Overlap
from griffin.train.data.store import (
    INDEX,
    StoreWriter,
    TokenStore,
    check_tokens,
    open_store,
    read_index,
)
from griffin.train.data.survey import (
    BAD_LINES,
    SKIP_HINT,
    Show,
    Survey,
    bad_lines,
    digest,
    survey,
)
from griffin.train.data.workers import in_order
from griffin.train.files import put_in_place, write_json, write_text, writing
from griffin.train.folder import Claim
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter

SIDES = ("train", "held_out")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_NOT_ENCODED = "not_encoded.jsonl"
_SMALL = 4_000_000  # bytes that one process reads sooner than others start


@dataclass(frozen=True)
class SourceData:
    """Hold the encoded documents of one source, on both sides of the split.

    train_rows, held_out_rows: where prompts are read, the columns of the row of each; else empty.
    """

    name: str
    train: TokenStore
    held_out: TokenStore
    train_rows: Sequence[Mapping[str, Any]] = ()
    held_out_rows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class RunData:
    """Hold the tokenizer and the encoded documents of all sources, in the recipe's order.

    overlap: what of the held-out documents stands in training.
    """

    tokenizer: Tokenizer
    sources: tuple[SourceData, ...]
    overlap: Overlap

    @property
    def train(self) -> TokenStore:
        """The training documents of a run with one source."""
        [source] = self.sources
        return source.train

    @property
    def held_out(self) -> TokenStore:
        """The held-out documents of a run with one source."""
        [source] = self.sources
        return source.held_out


def prepare_data(
    recipe: Recipe,
    out: Path,
    reporter: Reporter,
    claim: Claim,
    check: Callable[[], None] = lambda: None,
    *,
    workers: int = 1,
    skip_bad: bool = False,
) -> RunData:
    """Return a run's data, encoding the documents the first time.

    claim:    on `out`. Of a run that has begun, what an earlier call left there is taken, whatever
              has become of the documents since: a resumed run trains on what it began with. Where
              its data was deleted, the documents are encoded anew, by the tokenizer that it has.
              Data of a folder that is known is taken if the recipe's sections that decide it are
              the same, and so are the files, or they are gone. An earlier call that was ended is
              gone on with if the documents are.
    check:    called between blocks of documents; an exception of its own ends the work.
    workers:  processes; the result is the same for any number.
    skip_bad: pass over rows that cannot be read, and list them in data/bad_lines.jsonl.
    Raises ValueError if tokenizer and model do not fit, and as `survey` does.
    """
    folder = out / "data"
    found = claim.known and (folder / INDEX).exists()
    if found and not claim.begun:
        index = read_index(folder)
        found = index["recipe"] == recipe.data_digest() and _is_as_read(recipe, index["files"])
    if not found:
        _Preparation(recipe, out, reporter, check, workers, skip_bad, claim.begun).run()
    _clear(folder)
    index = read_index(folder)
    tokenizer = Tokenizer.open(out)
    _check_size(tokenizer.vocab_size, recipe)
    sources = list[SourceData]()
    for name, sides in index["stores"].items():
        train, held_out = (open_store(folder / name / s, index["dtype"], sides[s]) for s in SIDES)
        if found:  # by an earlier call; who knows what has happened to it since
            for side, store in zip(SIDES, (train, held_out), strict=True):
                check_tokens(folder / name / side, store, recipe.model.vocab_size)
        source = SourceData(name, train, held_out)
        if recipe.reads == "prompts":
            rows = [open_rows(folder / name / s, sides[s]) for s in SIDES]
            source = replace(source, train_rows=rows[0], held_out_rows=rows[1])
        sources.append(source)
    data = RunData(tokenizer, tuple(sources), Overlap(**index["overlap"]))
    tokens = sum(source.train.num_pairs for source in sources)
    reporter.say(
        f"{tokens:,} training tokens{_learned(recipe, sources, tokens)}; tokenizer"
        f" {tokenizer.digest[:12]}{'; prepared before' if found else ''}"
    )
    return data


def _clear(folder: Path) -> None:
    """Remove what only a preparation needs, that of one which was killed at its end included."""
    with contextlib.suppress(OSError):
        for name in (_NOT_ENCODED, JOURNAL):
            (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "survey", ignore_errors=True)


def _learned(recipe: Recipe, sources: Sequence[SourceData], tokens: int) -> str:
    """Say how many of the tokens are targets, and how long these are; nothing of mere prompts."""
    learned = sum(source.train.num_counted for source in sources)
    if recipe.reads == "prompts" or not learned:
        return ""
    size = sum(source.train.num_bytes for source in sources)
    which = "" if learned == tokens else f", of which {learned:,} are learned"
    return f"{which}, {size / learned:.2f} bytes each"


def _files(sources: Sequence[DataSource]) -> str:
    """Return what changes when a file of the sources does; rows of the Hub are not looked at."""
    return digest([source.identity() for source in sources if not source.recipe.hub])


def _is_as_read(recipe: Recipe, files: str) -> bool:
    """Return whether a recipe's files are those that were read, or are gone."""
    try:
        return _files(open_sources(recipe.data, recipe.folder)) == files
    except ValueError:
        return True


@dataclass
class _Preparation:
    """What is done once for a run: look at all documents, find a vocabulary, encode."""

    recipe: Recipe
    out: Path
    reporter: Reporter
    check: Callable[[], None]
    workers: int
    skip_bad: bool
    begun: bool  # for a run whose weights know a tokenizer

    @cached_property
    def sources(self) -> list[DataSource]:
        return open_sources(self.recipe.data, self.recipe.folder)

    def run(self) -> None:
        folder, data = self.out / "data", self.recipe.data
        self._check_tokenizer()
        for said in filter(None, (source.passed_over for source in self.sources)):
            self.reporter.say(said)
        if sum(source.size for source in self.sources) < _SMALL:
            self.workers = 1
        with self._progress("reading") as show:
            seen = survey(
                self.sources,
                data.held_out,
                data.max_document_bytes,
                folder / "survey",
                self.recipe.reads,
                workers=self.workers,
                skip_bad=self.skip_bad,
                check=self.check,
                show=show,
            )
        self._check_sources(seen)
        for left in (INDEX, BAD_LINES):  # of another recipe, which would have it still by now
            (folder / left).unlink(missing_ok=True)
        bytes_of = [int(seen.sizes[seen.held == side].sum()) for side in (False, True)]
        what = "documents" if seen.reads == "answers" else seen.reads
        self.reporter.say(
            f"{int((~seen.held).sum())} {what} to train on ({bytes_of[0] / 1e6:.1f} MB), "
            f"{int(seen.held.sum())} held out ({bytes_of[1] / 1e6:.2f} MB), "
            f"{seen.left_out}; {seen.overlap} stand in training"
        )
        self._make_tokenizer(seen)
        tokenizer = Tokenizer.open(self.out)
        _check_size(tokenizer.vocab_size, self.recipe)
        dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
        with self._progress("encoding") as show:
            notes = self._encode(seen, tokenizer, dtype, show)
        if notes["bad"]:
            self.reporter.say(f"{notes['bad']} rows could not be encoded ({BAD_LINES})")
        names = [source.recipe.name for source in self.sources]
        stores = {name: {side: notes[f"{name}/{side}"] for side in SIDES} for name in names}
        if not any(sides["held_out"]["documents"] for sides in stores.values()):
            raise ValueError(
                f"none of the held-out documents could be encoded; {folder / _NOT_ENCODED} says why"
            )
        overlap = {"lines": seen.overlap.lines, "shared": seen.overlap.shared}
        for other in folder.iterdir():  # of other recipes
            if other.is_dir() and other.name not in {*names, "survey"}:
                shutil.rmtree(other)
        index = {"dtype": dtype, "stores": stores, "overlap": overlap}
        index |= {"recipe": self.recipe.data_digest(), "files": _files(self.sources)}
        lists = {folder / "survey" / BAD_LINES: seen.bad, folder / _NOT_ENCODED: notes["bad"]}
        if listed := [path for path, bad in lists.items() if bad]:
            told = "".join(path.read_text(encoding="utf-8") for path in listed)
            write_text(folder / BAD_LINES, told)
        write_json(folder / INDEX, index)

    def _has_tokenizer(self) -> bool:
        return self.begun and any((self.out / name).exists() for name in _TOKENIZERS)

    def _check_tokenizer(self) -> None:
        """Raise ValueError, before documents are read, where `_make_tokenizer` would after it."""
        recipe = self.recipe
        if self._has_tokenizer() or recipe.base:
            return
        if recipe.tokenizer.path:
            given = open_bpe(recipe.folder / recipe.tokenizer.path)
            _check_size(given.get_vocab_size(), recipe)
        else:
            check_room(recipe.model.vocab_size)

    def _make_tokenizer(self, seen: Survey) -> None:
        """Leave the run's tokenizer: the checkpoint's, one that is given, or a new one."""
        recipe, out = self.recipe, self.out
        if self._has_tokenizer():
            return
        for left in COMPANIONS:  # by another recipe, which was found impossible
            (out / left).unlink(missing_ok=True)
        if recipe.base:
            weights = recipe.open_base().folder
            beside = tempfile.TemporaryDirectory(prefix=".tokenizer.partial-", dir=out)
            with writing(out / _TOKENIZERS[0]), beside as part:
                for folder in dict.fromkeys((find_tokenizer(weights), weights)):
                    copy_companions(folder, Path(part))
                for file in Path(part).iterdir():
                    put_in_place(file, out / file.name)
        elif recipe.tokenizer.path:
            save_bpe(open_bpe(recipe.folder / recipe.tokenizer.path), out)
        else:
            texts = _Texts(self, seen)
            save_bpe(train_bpe(texts, recipe.model.vocab_size, recipe.tokenizer.min_frequency), out)

    def _encode(self, seen: Survey, tokenizer: Tokenizer, dtype: str, show: Show) -> dict[str, Any]:
        """Encode all documents into the stores; return the notes of each, and of rows left out."""
        identity = digest(
            "encode", [source.identity() for source in self.sources], tokenizer.digest,
            tokenizer.chat_template, self.recipe.data.held_out, seen.most, seen.reads,
            self.skip_bad,
        )  # fmt: skip
        names = [source.recipe.name for source in self.sources]
        with Journal(self.out / "data", identity) as journal:
            notes: dict[str, Any] = {"bad": 0} | journal.notes
            writers = {
                key: StoreWriter(key, dtype, notes.get(key))
                for key in (f"{name}/{side}" for name in names for side in SIDES)
            }
            todo = itertools.islice(seen.with_sides(self.sources), journal.blocks, None)
            for done in in_order(EncodeBlocks(self.out, seen.most, seen.reads), todo, self.workers):
                self.check()
                if done.bad and not self.skip_bad:
                    raise ValueError(f"{done.bad[0][0]}: {done.bad[0][1]}{SKIP_HINT}")
                parts = {_NOT_ENCODED: bad_lines(done.bad)} if done.bad else {}
                for side, documents, rows in zip(SIDES, done.documents, done.rows, strict=True):
                    writer = writers[f"{names[done.source]}/{side}"]
                    parts |= writer.add(documents)
                    if rows:
                        parts[f"{writer.folder}/{ROWS}"] = b"".join(rows)
                    notes[writer.folder] = dict(writer.notes)
                notes["bad"] += len(done.bad)
                journal.append(parts, notes)
                show(done.size, sum(map(len, done.documents)))
            return notes

    def _check_sources(self, seen: Survey) -> None:
        owners = np.repeat(seen.blocks[:, 0], seen.blocks[:, 1])
        for number, source in enumerate(self.sources):
            if seen.held[owners == number].all():
                raise ValueError(
                    f"data.source {source.recipe.name!r} has no document to train on"
                    f" ({seen.left_out}; a held_out share of {self.recipe.data.held_out})"
                )

    @contextlib.contextmanager
    def _progress(self, what: str) -> Iterator[Show]:
        total = sum(source.size for source in self.sources)
        with self.reporter.preparing(what, total) as show:
            yield show


def _check_size(size: int, recipe: Recipe) -> None:
    if size > recipe.model.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} entries, the model's vocabulary {recipe.model.vocab_size}; "
            f"set model.vocab_size={size} or more"
        )


class _Texts:
    """The words of what is trained on, from the beginning as often as they are asked for."""

    def __init__(self, preparing: _Preparation, seen: Survey) -> None:
        self._preparing, self._seen = preparing, seen

    def __iter__(self) -> Iterator[str]:
        for _, document in self._seen.documents(self._preparing.sources, held=False):
            self._preparing.check()
            yield words_of(document.example)
