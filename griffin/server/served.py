"""The models that one engine serves: a base, and the base with each of its adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from griffin.conversation import fingerprint_of
from griffin.llm import LLM
from griffin.server import protocol as p
from griffin.sessions import Fingerprint


@dataclass(frozen=True, kw_only=True)
class Served:
    """One of the models.

    names:       what clients call it, its own name first.
    llm:         the model, as it reads and answers.
    fingerprint: of it, for what is kept. mark: the `system_fingerprint` of its answers.
    root:        what it was loaded from, as clients are told: a repository, or a folder's name.
    parent:      of an adapter, the name of the base; None of the base itself.
    """

    names: tuple[str, ...]
    llm: LLM
    fingerprint: Fingerprint
    mark: str
    root: str
    parent: str | None = None

    @property
    def name(self) -> str:
        return self.names[0]


def called(models: Sequence[Served], asked: str | None, any_name: bool) -> Served:
    """Return the model of a name, the first for None; ApiError (404) for a name that none has.

    any_name: a name that none has means the first, too.
    """
    names = {name: model for model in models for name in model.names}
    if any_name and asked not in names:
        return models[0]
    return names[p.check_model(asked, names)]


def reader_of(models: Sequence[Served], fingerprint: Fingerprint) -> Served | None:
    """Return which of the models read what has a fingerprint; None if it was another one."""
    return next((model for model in models if model.fingerprint == fingerprint), None)


def served_models(
    llm: LLM,
    version: str,
    name: str,
    aliases: Sequence[str] = (),
    roots: Mapping[str, str] | None = None,
) -> tuple[Served, ...]:
    """Return the models of a loaded one: the base, and after it each adapter under its own name.

    An adapter that changes the model for all (`Adapters.alone`) is there without the base, which
    cannot answer beside it. name, aliases: of the base. roots: what a model was loaded from, by its
    name, where that is not the name.
    Raises ValueError where two models would be called the same.
    """
    adapters, roots = llm.model.adapters, roots or {}
    names = tuple(dict.fromkeys((name, *aliases)))
    if taken := [adapter for adapter in adapters.names if adapter in names]:
        raise ValueError(
            f"an adapter is called {taken[0]!r}, and so is the model; call one of them something"
            " else (--adapter NAME=FOLDER, --name NAME)"
        )
    # Made once, and shared by what `using` returns.
    _ = llm.weights_digest, llm.grammars
    with suppress(ValueError):  # it is no chat model
        _ = llm.chat_format

    def made(names: tuple[str, ...], adapter: str) -> Served:
        own = llm.using(adapter)
        fingerprint = fingerprint_of(own)
        return Served(
            names=names,
            llm=own,
            fingerprint=fingerprint,
            mark=p.fingerprint(fingerprint.digest, version),
            root=roots.get(names[0], names[0]),
            parent=name if adapter else None,
        )

    base = () if adapters.alone else (made(names, ""),)
    return (*base, *(made((adapter,), adapter) for adapter in adapters.names))
