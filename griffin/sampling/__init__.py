"""How the next token is chosen: the parameters, and one sampler a row with its own random numbers.

params: plain values, checked. sampler: one row's choices. filters: what is left to draw from, and
the draw. constraint: what an answer may say, token by token.
"""

from griffin.sampling.constraint import Constraint, ConstraintError
from griffin.sampling.filters import best_ids, log_mass, support
from griffin.sampling.params import CHAT, Looks, SamplingParams
from griffin.sampling.sampler import Sample, Sampler, mark_ids

__all__ = [
    "CHAT",
    "Constraint",
    "ConstraintError",
    "Looks",
    "Sample",
    "Sampler",
    "SamplingParams",
    "best_ids",
    "log_mass",
    "mark_ids",
    "support",
]
