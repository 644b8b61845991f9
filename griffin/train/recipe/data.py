"""The sections [data] and [tokenizer] of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from griffin.train.recipe.section import check_types
from griffin.train.recipe.source import SourceRecipe, read_sources


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Say which documents are read.

    source              "stdlib": the standard library of the running Python; "files": files in
                        `root`; or tables, [[data.source]], which have root and patterns themselves.
    root                where `include` starts ("files" only); relative to the recipe's own folder.
    include, exclude    glob patterns over paths relative to the root; `*` stops at a /, `**` does
                        not.
    held_out            the share of documents kept for validation, chosen by a hash of the relative
                        path.
    max_document_bytes  longer files are cut into several documents, at ends of lines.
    packing             how documents fill rows. "cut": laid end to end, cut where a row is full;
                        "best-fit": placed whole where they fit, the rest of a row is padding.
    """

    source: str | tuple[SourceRecipe, ...] = "stdlib"
    root: str = "."
    include: tuple[str, ...] = ("**/*.py",)
    exclude: tuple[str, ...] = ()
    held_out: float = 0.05
    max_document_bytes: int = 1_000_000
    packing: Literal["cut", "best-fit"] = "cut"

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", read_sources(self.source))
        check_types(self, "data", but=("source",))
        if isinstance(self.source, tuple):
            for key in ("root", "include", "exclude"):
                if getattr(self, key) != DataRecipe.__dataclass_fields__[key].default:
                    raise ValueError(
                        f"data.{key} has no meaning beside [[data.source]]: give"
                        f" {'path' if key == 'root' else key} in the table that it is for"
                    )
        if not self.include:
            raise ValueError('data.include is empty; name at least one pattern, such as "**/*.txt"')
        if not 0 < self.held_out < 1:
            raise ValueError(
                f"data.held_out must lie between 0 and 1 (exclusive), not {self.held_out}"
            )
        if self.max_document_bytes < 1:
            raise ValueError(
                f"data.max_document_bytes must be positive, not {self.max_document_bytes}"
            )

    @property
    def sources(self) -> tuple[SourceRecipe, ...]:
        """The tables; where `source` is a word, the one that it is short for."""
        if isinstance(self.source, tuple):
            return self.source
        place = {"stdlib": True} if self.source == "stdlib" else {"path": self.root}
        patterns = {"include": self.include, "exclude": self.exclude}
        return (SourceRecipe(name=self.source, **place, **patterns),)  # pyright: ignore


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """Say where the vocabulary comes from.

    path           an existing `tokenizer.json`, relative to the recipe's own folder; empty: train
                   one on the training documents with as many pieces as the model's `vocab_size`.
    min_frequency  a learned piece occurs at least this often.
    """

    path: str = ""
    min_frequency: int = 2

    def __post_init__(self) -> None:
        check_types(self, "tokenizer")
        if self.min_frequency < 1:
            raise ValueError(
                f"tokenizer.min_frequency must be at least 1, not {self.min_frequency}"
            )
