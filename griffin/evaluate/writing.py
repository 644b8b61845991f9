"""Prompts that begin alike, as contexts from which a model goes on writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from griffin.engine import Context, Seen, read
from griffin.evaluate.branches import Ids, TextBranch, branches_of
from griffin.llm import LLM
from griffin.model import State

TOGETHER = 256  # contexts that are given at a time


def contexts_of(llm: LLM, texts: Sequence[Ids]) -> Iterator[list[tuple[int, Context]]]:
    """Read what prompts share, once, and give where each goes on: its number and a Context.

    Those that come together go on from one state, at most `TOGETHER` of them; the next come when
    these have been answered. A prompt's last id is not read. A context whose state would have read
    the first id alone has none.
    """
    apart = llm.beginning is not None
    waiting: list[tuple[TextBranch, State | None]] = [
        (branches_of([ids[:-1] for ids in texts], first_apart=apart), None)
    ]
    while waiting:
        branch, state = waiting.pop()
        if branch.end == 1 and llm.beginning is not None:
            state = llm.beginning.for_ids(texts[branch.text][:1].tolist())
        elif len(branch):
            part = texts[branch.text][branch.begin : branch.end].tolist()
            state, _ = read(llm.model, [part], state, adapter=llm.adapter)
        here = [(number, branch.end) for number in branch.ending]
        for child in branch.children:
            if child.children:
                waiting.append((child, state))
            else:
                here += [(number, branch.end) for number in child.ending]
        for low in range(0, len(here), TOGETHER):
            yield [
                (number, _context(state, texts[number], known))
                for number, known in here[low : low + TOGETHER]
            ]


def _context(state: State | None, ids: Ids, known: int) -> Context:
    """Return where a prompt goes on. known: how many of its ids the state has read."""
    if known <= 1:
        return Context().then(ids.tolist())
    begun = ids[:known].tolist()
    pending = tuple(ids[known:].tolist())
    return Context(state=state, pending=pending, seen=Seen(begun), tokens=len(ids))
