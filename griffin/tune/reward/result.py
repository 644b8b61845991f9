"""What a reward function gave for an answer, and how often it may give nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Why there is no reward: the function raised; was not done in time; returned NaN, infinity,
# a number beyond a million or what is none; wanted more memory; or ended its process.
REASONS = ("raised", "hung", "no number", "memory", "died")


@dataclass(frozen=True)
class Reward:
    """A finite number, or the reason why there is none.

    reason: "" beside a value, else one of REASONS. detail: a traceback or a sentence about it.
    """

    value: float | None
    reason: str = ""
    detail: str = ""


class TooManyFailures(ValueError):
    """A reward function failed on more of a step's answers than was allowed."""


def failures(rewards: Sequence[Reward]) -> dict[str, int]:
    """Count the rewards that are none, by reason; reasons that did not occur are left out."""
    counts = {reason: sum(each.reason == reason for each in rewards) for reason in REASONS}
    return {reason: count for reason, count in counts.items() if count}


def check_failures(rewards: Sequence[Reward], share: float) -> None:
    """Raise TooManyFailures if more than `share` of a step's rewards are none, with what the last
    one says and where.

    share: 0 allows no failure, 1 any number of them.
    """
    counts = failures(rewards)
    failed = sum(counts.values())
    if failed <= share * len(rewards):
        return
    last = next(each for each in reversed(rewards) if each.reason)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    raise TooManyFailures(
        f"the reward function failed on {failed} of {len(rewards)} answers ({reasons});"
        f" tune.reward_failures allows a share of {share:g}. The last one: {in_short(last.detail)}"
    )


def in_short(detail: str) -> str:
    """Return a traceback as its last line and the place that it names last; else the text."""
    places = re.findall(r'^ *File "(.*)", line (\d+)', detail, re.MULTILINE)
    if not places:
        return detail
    file, line = places[-1]
    return f"{detail.strip().splitlines()[-1].strip()} ({file}, line {line})"
