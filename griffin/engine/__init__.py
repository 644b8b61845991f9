"""Many sequences, one model, ids only: no text, no files."""

from griffin.engine.generate import Generation, generate
from griffin.engine.read import CHUNK, read
from griffin.engine.request import Event, FinishReason, Request, check_ids
from griffin.engine.score import score

__all__ = [
    "CHUNK",
    "Event",
    "FinishReason",
    "Generation",
    "Request",
    "check_ids",
    "generate",
    "read",
    "score",
]
