"""Opening what is kept, for the model that is to go on with it."""

from __future__ import annotations

from griffin.server.conversations.items import conversation_of
from griffin.server.served import Served, reader_of
from griffin.server.service import Service
from griffin.server.shelves import CONVERSATION
from griffin.sessions import Session, SessionExists, StateMismatch, Store, UnknownSession


def as_reader(service: Service, store: Store, name: str) -> Service:
    """Return the service as it answers with the model that a session or a state belongs to.

    Where that is none of those that are served it stays as it is, and opening it says so.
    """
    own = reader_of(service.models, store.show(name).fingerprint)
    return service if own is None else service.with_model(own)


def open_kept(service: Service, store: Store, name: str) -> Session:
    """Open a session or a state for the model that answers.

    One in which nothing was read yet becomes that model's. So does a conversation, whose items are
    its truth: they are read again. Raises StateMismatch for any other that another model read, and
    says by which name that one is asked for, if it is served.
    """
    try:
        return store.open(name, service.fingerprint)
    except StateMismatch:
        own = reader_of(service.models, store.show(name).fingerprint)
        if own is None:
            raise
    session = store.open(name, own.fingerprint)
    try:
        if session.tree() and conversation_of(name, session.settings) is None:
            raise _mismatch(service, name, own)
        session.begin_anew(service.fingerprint)
    except BaseException:
        session.close()
        raise
    return session


def check_reader(service: Service, store: Store, name: str) -> None:
    """Raise StateMismatch if a session or a state belongs to another of the models that are
    served."""
    own = reader_of(service.models, store.show(name).fingerprint)
    if own is not None and own.fingerprint != service.fingerprint:
        raise _mismatch(service, name, own)


def _mismatch(service: Service, name: str, own: Served) -> StateMismatch:
    return StateMismatch(
        f"{name!r} was read with the model {own.name!r}, and {service.name!r} cannot go on from"
        f" what another model read; ask for {own.name!r}, or begin anew"
    )


def open_session(service: Service, store: Store, name: str) -> Session:
    """Open a session, or make it if there is none of that name, which is no conversation's."""
    try:
        return open_kept(service, store, name)
    except UnknownSession:
        if name.startswith(CONVERSATION):
            raise UnknownSession(
                f"there is no conversation {name!r}; POST /v1/conversations makes one"
            ) from None
        try:
            return store.create(
                name, fingerprint=service.fingerprint, config=service.llm.model.config
            )
        except SessionExists:  # another process was quicker
            return store.open(name, service.fingerprint)
