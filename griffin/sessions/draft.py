"""Turns on their way into a session: what was said, before it is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from griffin.sessions.names import check_text, plain_json
from griffin.sessions.rows import TurnRow
from griffin.sessions.tokens import check_ids, extend_chain, pack_ids


@dataclass(frozen=True)
class Draft:
    """A turn without the state after it.

    role:  who said it.
    ids:   its tokens, at least one.
    text:  its text, to be shown later.
    stats: plain values to keep beside it.
    """

    role: str
    ids: Sequence[int]
    text: str | None = None
    stats: Mapping[str, Any] | None = None


def rows_of(
    drafts: Sequence[Draft], *, vocab_size: int, tokens: int, chain: bytes
) -> tuple[list[TurnRow], list[int]]:
    """Lay out drafts that follow one another as rows of the index; return their ids too.

    tokens, chain: of the conversation before them.
    Raises ValueError for a draft without ids, and for parts that cannot be kept.
    """
    rows: list[TurnRow] = []
    all_ids: list[int] = []
    for draft in drafts:
        ids = check_ids(draft.ids, vocab_size, "the turn's ids")
        if not ids:
            raise ValueError("a turn has at least one token")
        chain, tokens = extend_chain(chain, ids), tokens + len(ids)
        all_ids += ids
        row = TurnRow(
            role=check_text(draft.role, "the role"),
            text=None if draft.text is None else check_text(draft.text, "the text"),
            ids=pack_ids(ids),
            tokens=tokens,
            chain=chain.hex(),
            stats=plain_json(draft.stats, "the stats"),
            created=time.time(),
        )
        rows.append(row)
    return rows, all_ids


def count_read(unread: Sequence[int], pending: Sequence[int]) -> int:
    """Return how many unread ids a state has read if these are pending; ValueError if it cannot."""
    if not pending:
        raise ValueError(
            "nothing is pending; a state cannot step back, so keep the one before the last"
            " token, and that token as pending"
        )
    if len(pending) > len(unread) or tuple(unread[-len(pending) :]) != tuple(pending):
        raise ValueError(
            f"the {len(pending)} pending ids are not the last of the {len(unread)} that were to"
            " be read"
        )
    return len(unread) - len(pending)
