"""Read a tree of texts with a model: each branch once, many of them in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from griffin.engine import CHUNK, Beginning, scored_targets
from griffin.evaluate.branches import Ids, TextBranch, branches_of
from griffin.model import Griffin, State

ROWS = 32  # branches that are read in one call at most: each has a state of its own


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How probable the model finds the end of a text, given its beginning.

    logprob: natural logarithm of the probability of all ids of the end together.
    greedy:  whether each of them is the most probable one there.
    """

    logprob: float
    greedy: bool


@dataclass(eq=False)
class _Waiting:
    """A branch that is to be read, and the state before it, one row."""

    branch: TextBranch
    state: State


class TextReader:
    """Measure the ends of texts, from states that fork where the texts part.

    model:   the Griffin. adapter: the name of its adapter that reads; "" is none.
    texts:   ids, two or more each; begins: how many of each are only read. What follows these is
             measured. The last id of a text is never read: nothing comes after it.
    beginning: the tuned state behind which the texts are read. What comes after the first id is
             then as likely as without it: a state has no logits of its own.
    Every result is to the bit that of reading its text alone, where the model's rows are alike
    alone and in company (on the CPU's native kernels). Raises ValueError for a text that does not
    begin with BOS where there is a beginning.
    """

    def __init__(
        self,
        model: Griffin,
        texts: Sequence[Ids],
        begins: Sequence[int],
        adapter: str = "",
        beginning: Beginning | None = None,
    ) -> None:
        self._model, self._texts, self._begins = model, texts, begins
        self._adapter = model.adapters.index(adapter)
        self._beginning = beginning
        if beginning is not None:
            for ids in texts:
                beginning.for_ids(ids[:1].tolist())
        self.root = branches_of([ids[:-1] for ids in texts], first_apart=beginning is not None)
        self._below = _below(self.root)
        self._sums: list[list[float]] = [[] for _ in texts]
        self._greedy = [True] * len(texts)

    @property
    def asked(self) -> int:
        """How many tokens are read where each text is read alone."""
        return sum(len(ids) - 1 for ids in self._texts)

    def __iter__(self) -> Iterator[tuple[int, Measured]]:
        """Read, and give the number of each text and its result as soon as it has one."""
        zeros = State.zeros(self._model.config, dtype=self._model.dtype, device=self._model.device)
        forks, leaves = list[_Waiting](), list[_Waiting]()

        def follow(branch: TextBranch, state: State) -> None:
            for child in sorted(branch.children, key=len, reverse=True):
                (forks if child.children else leaves).append(_Waiting(child, state))

        follow(self.root, zeros)
        while forks or leaves:
            with torch.no_grad():
                if forks and len(leaves) < ROWS and sum(len(w.branch) for w in leaves) < CHUNK:
                    batch = _batch(forks)
                    states = self._read(batch, left=True)
                    if self._beginning is not None and batch[0].branch.begin == 0:
                        states = self._beginning.state  # in the place of the one after BOS
                    for row, waiting in enumerate(batch):
                        follow(waiting.branch, states.select([row]))
                else:
                    batch = _batch(leaves)
                    self._read(batch, left=False)
            for waiting in batch:
                for number in waiting.branch.ending:
                    # In the order of its ids, whatever else was read between them.
                    total = sum(self._sums[number])
                    yield number, Measured(logprob=total, greedy=self._greedy[number])

    def _read(self, batch: list[_Waiting], left: bool) -> State:
        """Read branches and return the states after them.

        left: pad shorter ones on the left. Otherwise it is on the right, which costs nothing and
              spoils their states.
        """
        state, longest = _joined(batch), max(len(waiting.branch) for waiting in batch)
        for low in range(0, longest, CHUNK):  # only one that is alone takes several calls
            parts = [self._ids(waiting.branch)[low : low + CHUNK] for waiting in batch]
            width = max(map(len, parts))
            pads = [width - len(part) if left else 0 for part in parts]
            tokens = torch.zeros(len(batch), width, dtype=torch.int64)
            for row, (part, pad) in enumerate(zip(parts, pads, strict=True)):
                tokens[row, pad : pad + len(part)] = part
            places = torch.arange(width) - torch.tensor(pads)[:, None]
            shift = low if self._beginning is None else low + self._beginning.keys - 1
            begins = torch.tensor([[waiting.branch.begin + shift] for waiting in batch])
            places = torch.where(places < 0, -1, places + begins) if any(pads) else None
            hidden, state = self._model.trunk(
                tokens.to(self._model.device),
                state,
                None if places is None else places.to(self._model.device),
                donate=True,
                adapters=[self._adapter] * len(batch),
            )
            self._score(batch, hidden, low, pads)
        return state

    def _score(self, batch: list[_Waiting], hidden: Tensor, low: int, pads: Sequence[int]) -> None:
        """Add what a call says of the ids after its own to the texts' results.

        hidden: (B, T, D); its columns are those of the branches from `low` on, after the pads.
        """
        rows, targets, numbers = list[Tensor](), list[int](), list[int]()
        for row, (waiting, pad) in enumerate(zip(batch, pads, strict=True)):
            branch = waiting.branch
            # The places of the text after which something is measured, as columns of this call.
            shift = pad - branch.begin - low
            for number in self._below[id(branch)]:
                ids, first = self._texts[number], self._begins[number] - 1
                begin = max(first + shift, pad)
                end = min(branch.end + shift, hidden.shape[1])
                if begin < end:
                    rows.append(row * hidden.shape[1] + torch.arange(begin, end))
                    targets += ids[begin - shift + 1 : end - shift + 1].tolist()
                    numbers += [number] * (end - begin)
        if not rows:
            return
        places, back = torch.cat(rows).unique(return_inverse=True)
        device = hidden.device
        logprobs, greedy = scored_targets(
            self._model,
            hidden.flatten(0, 1)[places.to(device)],
            torch.tensor(targets, device=device),
            back.to(device),
        )
        for number, logprob, best in zip(numbers, logprobs.tolist(), greedy.tolist(), strict=True):
            self._sums[number].append(logprob)
            self._greedy[number] &= best

    def _ids(self, branch: TextBranch) -> Tensor:
        part = self._texts[branch.text][branch.begin : branch.end]
        return torch.from_numpy(part.astype(np.int64))


def _joined(batch: list[_Waiting]) -> State:
    """Return the states of a batch as one, its own."""
    parts = list[State]()
    for _, group in groupby(batch, key=lambda waiting: id(waiting.state)):
        alike = list(group)
        parts.append(alike[0].state.select([0] * len(alike)))
    return parts[0] if len(parts) == 1 else State.cat(parts)


def _batch(waiting: list[_Waiting]) -> list[_Waiting]:
    """Take the branches from the end of a list that are read together: one at least."""
    batch, longest = list[_Waiting](), 0
    while waiting and len(batch) < ROWS:
        longest = max(longest, len(waiting[-1].branch))
        if batch and longest * (len(batch) + 1) > CHUNK:
            break
        batch.append(waiting.pop())
    return batch


def _below(root: TextBranch) -> dict[int, list[int]]:
    """Return the numbers of the texts that go through each branch, by the branch's id()."""
    found = dict[int, list[int]]()
    for branch in reversed([*root]):
        below = [*branch.ending]
        for child in branch.children:
            below += found[id(child)]
        found[id(branch)] = below
    return found
