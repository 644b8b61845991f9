"""Many sequences, one model, ids only: no text, no files."""

from griffin.engine.beginning import Beginning
from griffin.engine.context import Context, Seen
from griffin.engine.embed import Pooling, embed
from griffin.engine.engine import Engine
from griffin.engine.generate import Generation, generate
from griffin.engine.prefix_cache import PrefixCache
from griffin.engine.read import CHUNK, read
from griffin.engine.request import End, EndReason, Event, FinishReason, Refused, Request, check_ids
from griffin.engine.score import hidden_pieces, score, scored_targets, target_logprobs
from griffin.engine.slots import Slots
from griffin.engine.stats import Stats
from griffin.engine.ticket import Ticket

__all__ = [
    "CHUNK",
    "Beginning",
    "Context",
    "End",
    "EndReason",
    "Engine",
    "Event",
    "FinishReason",
    "Generation",
    "Pooling",
    "PrefixCache",
    "Refused",
    "Request",
    "Seen",
    "Slots",
    "Stats",
    "Ticket",
    "check_ids",
    "embed",
    "generate",
    "hidden_pieces",
    "read",
    "score",
    "scored_targets",
    "target_logprobs",
]
