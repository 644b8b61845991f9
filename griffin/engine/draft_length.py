"""How many drafts are worth their time: what calls cost, and how often drafts are right."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence

import torch

from griffin.engine.drafter import GIVEN, LONGEST
from griffin.model import Griffin, State
from griffin.model.screen import unembed_best

FORCED = LONGEST + 1  # the match of what a constraint leaves no choice for
SIZES = (1, 8, 16, 4, 2)  # tokens of the calls that are measured, the most telling first
SECONDS = 0.3
# What is thought of a match before anything is known, as so many tries.
_BEFORE = 4.0
_FADES = 0.97  # an old try counts so much less with each new one
# How far a call that was made moves what is known: of the machine's mood, which all sizes share,
# and of its own size beside the others.
_MOOD, _SHAPE = 0.5, 0.05

_known: weakref.WeakKeyDictionary[Griffin, Costs] = weakref.WeakKeyDictionary()


class Costs:
    """The time of a call of several tokens beside one of one token.

    seconds: measured, by the tokens that were read together: of one row to begin with, and of
             whatever rows the engine reads from then on. Many rows with long drafts are far beyond
             what can be measured while somebody waits: there a call costs its arithmetic, not the
             reading of weights, and the line of the first few tokens promises too much.
    mood:    how many times as long as these calls take now. A shared machine changes within
             seconds, and calls of one token are rare while drafts are right: without it a call of
             two would be held against those of one in better or worse times.
    """

    def __init__(self, seconds: dict[int, float]) -> None:
        if 1 not in seconds or len(seconds) < 2:
            raise ValueError(f"costs need the times of 1 and of more tokens, not {seconds}")
        # More tokens never take less time; what says so was disturbed.
        least, self.seconds = 0.0, {}
        for size, time_ in sorted(seconds.items()):
            self.seconds[size] = least = max(least, time_)
        self.mood = 1.0

    def note(self, tokens: int, seconds: float) -> None:
        """Learn from a call that was made. A single one that was disturbed moves little."""
        size = 1 << (tokens - 1).bit_length()  # so that neighbours learn from each other
        # No clock, however coarse, ends an answer.
        slower = max(seconds, 1e-9) / max(self.mood * self._of(tokens), 1e-9)
        if size > max(self.seconds):
            self.seconds[size] = slower * self._of(size)
            return
        self.seconds.setdefault(size, self._of(size))
        slower = min(slower, 2.0)
        self.mood *= slower**_MOOD
        self.seconds[size] *= slower**_SHAPE

    def of(self, tokens: int) -> float:
        """Return c(tokens): 1 for 1, between and beyond what was measured along straight lines."""
        return max(1.0, self._of(tokens) / self.seconds[1])

    def _of(self, tokens: int) -> float:
        sizes = sorted(self.seconds)
        high = next((n for n, size in enumerate(sizes) if size >= tokens), len(sizes) - 1)
        low, high = max(0, high - 1), max(high, 1)
        one, other = sizes[low], sizes[high]
        first, last = self.seconds[one], self.seconds[other]
        return max(0.0, first + max(0.0, (last - first) / (other - one)) * (tokens - one))


@torch.no_grad()
def measure(model: Griffin, seconds: float = SECONDS) -> Costs:
    """Return what calls of a model cost: of 1 and 8 tokens, of others while the time lasts."""
    window = model.config.attention_window_size
    found: dict[int, float] = {}
    _call(model, 1, State.zeros(model.config, 1, dtype=model.dtype, device=model.device))
    begun = time.perf_counter()  # not before: the first call meets weights that nobody has read
    for size in SIZES:
        size = min(size, window)
        if size in found or (len(found) > 1 and time.perf_counter() - begun > seconds):
            continue
        state = State.zeros(model.config, 1, dtype=model.dtype, device=model.device)
        least = float("inf")
        for calls in range(1, 6):
            since = time.perf_counter()
            state = _call(model, size, state)
            least = min(least, time.perf_counter() - since)
            # The first of a size takes up to twice as long: its memory is new.
            if calls > 1 and time.perf_counter() - begun > seconds * (len(found) + 1) / len(SIZES):
                break
        found[size] = least
    return Costs(found if len(found) > 1 else {**found, 2: 2 * found[1]})


def _call(model: Griffin, size: int, state: State) -> State:
    """Let a row read so many tokens in one call, and wait until it has; return its state."""
    tokens = torch.zeros(size, dtype=torch.int64, device=model.device)
    hidden, state, _ = model.trunk_with_trail(tokens, [size], state)
    unembed_best(model, hidden)[:, :1].tolist()
    return state


def costs_of(model: Griffin) -> Costs:
    """Return what calls of a model cost, measured once in a process."""
    if model not in _known:
        _known[model] = measure(model)
    return _known[model]


def note(model: Griffin, tokens: int, seconds: float) -> None:
    """Learn what a call of a model took, if its costs are known."""
    if (costs := _known.get(model)) is not None:
        costs.note(tokens, seconds)


@torch.no_grad()
def prepare(model: Griffin) -> None:
    """Measure what calls cost of a model that drafts by itself, while nobody waits for a token."""
    if model.alike:
        costs_of(model)


class Odds:
    """How often drafts are right, by how many tokens before them were the same."""

    def __init__(self) -> None:
        # Of short matches less than texts have on average (0.42 of two tokens, 0.54 of three): what
        # is not read ahead is learned from all the same, and a text that repeats nothing is no
        # slower by then.
        found = {2: 0.15, 3: 0.3, 4: 0.5, 5: 0.65, 6: 0.75, 7: 0.8, 8: 0.85}
        prior = found | {GIVEN: 0.8, FORCED: 1.0}
        self._right = {match: _BEFORE * share for match, share in prior.items()}
        self._tries = dict.fromkeys(prior, _BEFORE)

    def note(self, match: int, right: bool) -> None:
        """Learn whether a token was what a match said, drafted or not."""
        self._right[match] = self._right[match] * _FADES + right
        self._tries[match] = self._tries[match] * _FADES + 1

    def of(self, match: int) -> float:
        """Return the share of right ones."""
        return self._right[match] / self._tries[match]


def deeper(match: int) -> int:
    """Return what a match is once its first token was right."""
    return match if match in (GIVEN, FORCED) else min(LONGEST, match + 1)


def lengths(drafts: Sequence[tuple[int, int, Odds]], costs: Costs) -> list[int]:
    """Return how many drafts of each row are worth most tokens for the time of one call.

    drafts: of each row how many there are, the match that they are from, and its odds.
    The likeliest are taken first, over all rows; as many as give the best share of expected tokens
    to time, none included.
    """
    steps: list[tuple[float, int]] = []
    for row, (count, match, odds) in enumerate(drafts):
        chance = 1.0
        for _ in range(count):
            chance *= odds.of(match)
            match = deeper(match)
            steps.append((chance, row))
    # Within a row chances only fall, so a row's drafts stay in order.
    steps.sort(key=lambda step: -step[0])
    expected = float(len(drafts))
    best, count = expected / costs.of(len(drafts)), 0
    for n, (chance, _) in enumerate(steps, 1):
        expected += chance
        share = expected / costs.of(len(drafts) + n)
        if share > best:
            best, count = share, n
    taken = [0] * len(drafts)
    for _, row in steps[:count]:
        taken[row] += 1
    return taken
