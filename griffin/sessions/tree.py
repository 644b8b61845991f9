"""The tree that turns form, whoever keeps them."""

from __future__ import annotations

from collections.abc import Sequence

from griffin.sessions.turn import Branch, Turn


def line_to(tree: Sequence[Turn], turn: Turn | None) -> list[Turn]:
    """Return the turns from a first one to this one, oldest first; none for None."""
    by_number = {each.number: each for each in tree}
    way: list[Turn] = []
    while turn is not None:
        way.append(turn)
        turn = by_number[turn.parent] if turn.parent is not None else None
    return way[::-1]


def youngest(tree: Sequence[Turn], turn: Turn) -> Turn:
    """Return where the youngest of the turns that follow this one lead; itself if none follows.

    tree: in the order the turns were made.
    """
    children = {each.parent: each for each in tree}  # the youngest of each parent
    while turn.number in children:
        turn = children[turn.number]
    return turn


def read_ids(line: Sequence[Turn]) -> list[int]:
    """Return the ids that the state after these turns has read, as far as they are known.

    Those of a state file without turns are not, except for its pending ones, which the next turn
    has read.
    """
    ids = [i for turn in line for i in turn.ids or turn.pending]
    return ids[: len(ids) - len(line[-1].pending)] if line else ids


def branches(tree: Sequence[Turn], head: Turn | None) -> list[Branch]:
    """Return all ways through the tree, in the order their last turns were made."""
    inner = {turn.parent for turn in tree}
    on_head = {turn.number for turn in line_to(tree, head)}
    found: list[Branch] = []
    for tip in tree:
        if tip.number in inner:
            continue
        way = {turn.number for turn in line_to(tree, tip)}
        current = head is not None and head.number in way
        found.append(Branch(tip=tip, turns=len(way), shared=len(on_head & way), current=current))
    return found


def at_least_one(turns: int, what: str) -> None:
    """Raise ValueError for what is no number of turns to go."""
    if not isinstance(turns, int) or isinstance(turns, bool) or turns < 1:
        raise ValueError(f"{what} takes 1 or more turns, not {turns!r}")
