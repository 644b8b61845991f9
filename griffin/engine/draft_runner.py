"""The runner that reads what will probably be chosen together with what was, and loses nothing
where it was wrong. docs/drafting.md tells how."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from griffin.engine.batch import Batch
from griffin.engine.choosing import choose
from griffin.engine.draft_length import FORCED, Odds, costs_of, deeper, lengths, note
from griffin.engine.drafter import Drafter, Guess
from griffin.engine.request import End, Event
from griffin.engine.row import Row
from griffin.engine.runner import Chosen, ModelRunner
from griffin.model import Griffin, Trail
from griffin.sampling.params import MOST_DRAFTS


@dataclass
class _Written:
    """What is known of a row's text, and what was proposed for its next token."""

    drafter: Drafter
    odds: Odds
    answered: int = 0
    draft: Guess = field(default_factory=lambda: Guess([], 0))


@dataclass
class _Ahead:
    """What a call read of one row beyond its last token, and what came of it.

    lines: logits (k + 1, V) after the last token and after each draft.
    at:    the last of them that was chosen from; -1 for none yet.
    """

    trail: Trail
    row: int
    lines: Tensor
    draft: Guess
    at: int = -1


class DraftRunner(ModelRunner):
    """A Runner that hands out several tokens of a row for one call of the model where it can.

    A row's own sampler chooses each token, from logits that stand behind exactly the tokens before
    it; nothing is chosen before its turn. So an answer is the one without drafts, and whoever ends
    it, or sets it aside, in the middle finds the state of the last token handed out.
    """

    def __init__(self, model: Griffin) -> None:
        super().__init__(model)
        self._written: WeakKeyDictionary[Row, _Written] = WeakKeyDictionary()
        self._ahead: WeakKeyDictionary[Row, _Ahead] = WeakKeyDictionary()

    def step(self, batch: Batch) -> Chosen:
        if ready := [row for row in batch.running if self._fits(row)]:
            # No call is needed for them; the others wait no longer than a choice takes.
            return [(row, self._choose(row)) for row in ready]
        rows = list(batch.running)
        for row in rows:
            self.settle(batch, row)
        drafts = self._drafts(rows)
        if not any(draft.ids for draft in drafts):
            chosen = super().step(batch)
            for row, event in chosen:
                self._note(row, event)
            return chosen
        self._read_ahead(batch, rows, drafts)
        return [(row, self._choose(row)) for row in rows]

    def settle(self, batch: Batch, row: Row) -> None:
        ahead = self._ahead.pop(row, None)
        if ahead is not None and ahead.at < len(ahead.draft.ids):
            ahead.trail.go_back(batch.slots.view(batch.slot(row)), ahead.row, ahead.at + 1)

    def _read_ahead(self, batch: Batch, rows: Sequence[Row], drafts: Sequence[Guess]) -> None:
        """Let the model read each row's last token and its drafts."""
        ids = [[row.chosen[-1], *draft.ids] for row, draft in zip(rows, drafts, strict=True)]
        tokens = torch.tensor([id for mine in ids for id in mine], device=self._model.device)
        counts, since = [len(mine) for mine in ids], time.perf_counter()
        hidden, state, trail = self._model.trunk_with_trail(
            tokens, counts, batch.slots.view(0, len(rows)), [row.ticket.adapter for row in rows]
        )
        batch.slots.store(0, state)
        each = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        lines = self.unembed(hidden, each).split(counts)
        self._timed(len(tokens), since)
        self.steps += 1
        for number, (row, draft) in enumerate(zip(rows, drafts, strict=True)):
            self._ahead[row] = _Ahead(trail, number, lines[number], draft)
            row.ticket.drafted += len(draft.ids)

    def _logits(self, batch: Batch, rows: Sequence[Row]) -> Tensor:
        since = time.perf_counter()
        logits = super()._logits(batch, rows)
        self._timed(len(rows), since)
        return logits

    def _timed(self, tokens: int, since: float) -> None:
        """Learn what a call took; of other devices the clock knows only when it was asked for."""
        if self._model.device.type == "cpu":
            note(self._model, tokens, time.perf_counter() - since)

    def _fits(self, row: Row) -> bool:
        """Return whether the logits after a row's last token are there: it was a draft."""
        ahead = self._ahead.get(row)
        if ahead is None or ahead.at >= len(ahead.draft.ids):
            return False
        return row.chosen[-1] == ahead.draft.ids[ahead.at]

    def _choose(self, row: Row) -> Event | End:
        ahead = self._ahead[row]
        ahead.at += 1
        event = choose(row, ahead.lines[ahead.at])
        if isinstance(event, Event) and ahead.at < len(ahead.draft.ids):
            row.ticket.accepted += event.id == ahead.draft.ids[ahead.at]
        self._note(row, event)
        return event

    # What is proposed.

    def _drafts(self, rows: Sequence[Row]) -> list[Guess]:
        """Return the drafts of each row that are worth reading."""
        window = self._model.config.attention_window_size
        usual = MOST_DRAFTS if self._model.alike else 0
        found: list[Guess] = []
        weighed: list[tuple[int, int, Odds]] = []
        for row in rows:
            params = row.ticket.request.params
            asked = usual if params.draft is None else params.draft
            # What is chosen after the last draft needs no room, and a ring has to hold all.
            most = min(asked, params.max_tokens - len(row.chosen) - 1, window - 1)
            draft = self._proposed(row, max(0, most)) if asked else Guess([], 0)
            found.append(draft)
            # Whoever says how many gets them; of the others' time is the question.
            weighed.append((len(draft.ids), draft.match, self._odds(row)))
        free = [n for n, row in enumerate(rows) if row.ticket.request.params.draft is None]
        if any(found[n].ids for n in free):
            taken = lengths([weighed[n] for n in free], costs_of(self._model))
            for n, count in zip(free, taken, strict=True):
                found[n] = Guess(found[n].ids[:count], found[n].match)
        return found

    def _odds(self, row: Row) -> Odds:
        written = self._written.get(row)
        return Odds() if written is None else written.odds

    def _proposed(self, row: Row, most: int) -> Guess:
        """Return what may come next: what a constraint demands, or else what the text says."""
        written = self._written.get(row)
        if written is None:
            request = row.ticket.request
            before = request.context.seen.ids()
            drafter = Drafter([*before, *row.ticket.ids], request.prediction)
            written = self._written[row] = _Written(drafter, Odds())
        for id in row.chosen[written.answered :]:
            written.drafter.add(id)
        written.answered = len(row.chosen)
        assert row.sampler is not None
        forced = row.sampler.forced()[:most] if most else []
        draft = Guess(forced, FORCED) if forced else written.drafter.propose(max(1, most))
        vocabulary = row.sampler.vocab_size
        bad = next((n for n, id in enumerate(draft.ids) if not 0 <= id < vocabulary), None)
        draft = Guess(draft.ids[:bad], draft.match)
        written.draft = draft
        return Guess(draft.ids[:most], draft.match)

    def _note(self, row: Row, event: Event | End) -> None:
        """Learn whether the next token was what had been proposed, read as a draft or not."""
        written = self._written.get(row)
        if written is None or not written.draft.ids or not isinstance(event, Event):
            return
        ids, match = written.draft
        right = event.id == ids[0]
        written.odds.note(match, right)
        written.draft = Guess(ids[1:] if right else [], deeper(match))
