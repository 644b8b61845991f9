"""What an engine is doing, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stats:
    """A look at an engine between two steps.

    slots, busy:      rows of its state, and how many are in use: running, or reading their prompt.
    running, reading: those two.
    waiting:          requests that were taken and have no slot yet.
    paused:           requests that are set aside.
    kept:             states outside the slots, reserved places included.
    kept_places:      how many of them there may be.
    tokens_read:      of prompts, by the model.
    tokens_reused:    of prompts, spared by the prefix cache.
    tokens_generated: chosen, in all answers.
    steps:            steps of all running rows.
    slot_bytes:       of the slots.
    kept_bytes:       of the places that are in use.
    device:           in whose memory slots and kept states lie.
    cache_bytes:      of the prefix cache, in the host's memory.
    """

    slots: int
    busy: int
    running: int
    reading: int
    waiting: int
    paused: int
    kept: int
    kept_places: int
    tokens_read: int
    tokens_reused: int
    tokens_generated: int
    steps: int
    slot_bytes: int
    kept_bytes: int
    device: str
    cache_bytes: int
