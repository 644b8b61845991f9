"""What is told of conversations, state files and their turns, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from griffin.cli.shared.stores import model_of, verbatim

if TYPE_CHECKING:
    from griffin.sessions import SessionInfo, StateInfo, Turn, TurnRecord


def about_session(info: SessionInfo) -> dict[str, Any]:
    """Return what is told of a conversation that is kept."""
    return {
        "name": info.name,
        "title": info.title,
        "model": model_of(info),
        "parent": info.parent,
        "turn_count": info.turns,
        "tokens": info.tokens,
        "bytes": info.nbytes,
        "created": info.created,
        "used": info.used,
        "settings": info.settings,
        "fingerprint": info.fingerprint.to_dict(),
    }


def about_file(info: StateInfo) -> dict[str, Any]:
    """Return what is told of a state file."""
    return {
        "title": info.title,
        "model": info.model,
        "tokens": info.tokens,
        "verbatim": verbatim(info.tokens, info.config),
        "chain": info.chain,
        "created": info.created,
        "fingerprint": info.fingerprint.to_dict(),
    }


def about_turn(number: int, turn: Turn | TurnRecord) -> dict[str, Any]:
    """Return what is told of a turn, of a file's or a store's."""
    about = {"number": number, "role": turn.role, "text": turn.text, "tokens": turn.tokens}
    about |= {"created": turn.created, "chain": turn.chain}
    # What only those of a store have.
    for name in ("number", "parent", "nbytes", "restorable", "stats"):
        if hasattr(turn, name):
            about[name] = getattr(turn, name)
    return about
