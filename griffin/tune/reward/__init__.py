"""Rewards that a user's Python function gives to answers, in processes with limits."""

from griffin.tune.reward.known import note_reward
from griffin.tune.reward.result import REASONS, Reward, TooManyFailures, check_failures, failures
from griffin.tune.reward.rewards import Rewards

__all__ = [
    "REASONS",
    "Reward",
    "Rewards",
    "TooManyFailures",
    "check_failures",
    "failures",
    "note_reward",
]
