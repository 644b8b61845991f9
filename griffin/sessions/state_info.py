"""What a state file says of its state: whose it is, what was read, and the turns that led there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from griffin.model import GriffinConfig
from griffin.sessions.fingerprint import Fingerprint, config_digest
from griffin.sessions.names import check_text, is_moment
from griffin.sessions.tokens import NOTHING, check_ids, extend_chain
from griffin.sessions.turn import Turn


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """A turn as text and tokens, without its state. Fields as those of Turn."""

    role: str
    text: str | None
    ids: tuple[int, ...]
    tokens: int
    chain: str
    created: float


@dataclass(frozen=True, kw_only=True)
class StateInfo:
    """Everything about a state but its numbers.

    fingerprint: of the model it belongs to; `fingerprint.config` is the digest of `config`.
    config:      the model's shape.
    tokens:      how many tokens led to it, `pending` included.
    chain:       hash chain over all of them (`extend_chain`), 32 hexadecimal digits.
    pending:     the last ids, which the state has not read: at least one.
    turns:       the conversation so far, oldest first; empty if it was no conversation, or its text
                 is not kept.
    parent:      the chain of the state it went on from; "" if it went on from none.
    title:       for people. model: what the model was called, for people too; "" if not known.
    created:     seconds since 1970.
    """

    fingerprint: Fingerprint
    config: GriffinConfig
    tokens: int
    chain: str
    pending: tuple[int, ...]
    turns: tuple[TurnRecord, ...] = ()
    parent: str = ""
    title: str = ""
    model: str = ""
    created: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        """Raise ValueError for parts that contradict each other."""
        if self.fingerprint.config != config_digest(self.config):
            raise ValueError("the fingerprint's config is not the digest of the config beside it")
        check_ids(self.pending, self.config.vocab_size, "the pending ids")
        if not self.pending:
            raise ValueError(
                "nothing is pending; keep the state before its last token, and that token beside it"
            )
        if not len(self.pending) <= self.tokens < 1 << 63:
            raise ValueError(f"{len(self.pending)} ids are pending, of {self.tokens} tokens in all")
        if not is_moment(self.created):
            raise ValueError(f"created is {self.created!r}; it counts seconds since 1970")
        check_text(self.title, "the title")
        check_text(self.model, "the model's name")
        check_text(self.parent, "the parent")
        _check_chain(self.chain)
        _check_turns(self)

    @property
    def records(self) -> tuple[TurnRecord, ...]:
        """The turns; where there are none, one that stands for all that was read."""
        bare = TurnRecord(
            role="state",
            text=None,
            ids=(),
            tokens=self.tokens,
            chain=self.chain,
            created=self.created,
        )
        return self.turns or (bare,)


def info_of(
    line: Sequence[Turn],
    pending: Sequence[int],
    fingerprint: Fingerprint,
    config: GriffinConfig,
    title: str,
    model: str = "",
) -> StateInfo:
    """Return what a state file says of the last of these turns, which follow each other.

    pending: the ids at its end that the state beside it has not read.
    """
    turn = line[-1]
    records = (
        TurnRecord(
            role=t.role, text=t.text, ids=t.ids, tokens=t.tokens, chain=t.chain, created=t.created
        )
        for t in line
    )
    return StateInfo(
        fingerprint=fingerprint,
        config=config,
        tokens=turn.tokens,
        chain=turn.chain,
        pending=tuple(pending),
        turns=tuple(records),
        parent=line[-2].chain if len(line) > 1 else "",
        title=title,
        model=model,
    )


def count_of(value: Any) -> int:
    """Return a number of tokens; ValueError for what is none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.80} is no number of tokens")
    return value


def _check_turns(info: StateInfo) -> None:
    """Raise ValueError unless the turns follow one another and end where the state does.

    What was read before the first turn's own tokens need not be known.
    """
    before: TurnRecord | None = None
    for number, turn in enumerate(info.turns, start=1):
        what = f"turn {number}"
        check_text(turn.role, f"the role of {what}")
        if turn.text is not None:
            check_text(turn.text, f"the text of {what}")
        if not is_moment(turn.created):
            raise ValueError(
                f"{what} was made at {turn.created!r:.80}; it should be seconds since 1970"
            )
        count_of(turn.tokens)
        check_ids(turn.ids, info.config.vocab_size, f"the ids of {what}")
        _check_chain(turn.chain)
        if before is None:
            chain = NOTHING if len(turn.ids) == turn.tokens else None
            if len(turn.ids) > turn.tokens:
                raise ValueError(
                    f"{what} has {len(turn.ids)} ids and ends after {turn.tokens} tokens"
                )
        else:
            chain = bytes.fromhex(before.chain)
            if before.tokens + len(turn.ids) != turn.tokens:
                raise ValueError(
                    f"{what} ends after {turn.tokens} tokens, not {before.tokens + len(turn.ids)}"
                )
        if chain is not None and extend_chain(chain, turn.ids).hex() != turn.chain:
            raise ValueError(f"the tokens of {what} are not those its hash was made of")
        before = turn
    if before is not None and (before.tokens, before.chain) != (info.tokens, info.chain):
        raise ValueError("the last turn does not end where the state does")
    known = [i for turn in info.turns[-len(info.pending) - 1 :] for i in turn.ids][
        -len(info.pending) :
    ]
    if known != list(info.pending)[len(info.pending) - len(known) :]:
        raise ValueError("the pending ids are not the last ones of the turns")


def _check_chain(chain: str) -> None:
    if len(bytes.fromhex(chain)) != len(NOTHING):
        raise ValueError(
            f"a token chain has {2 * len(NOTHING)} hexadecimal digits, not {chain!r:.80}"
        )
