"""One answer under a grammar."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from griffin.sampling import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher

_PICTURE = re.compile(r"\d+ \||\^+$")
_PLACE = re.compile(r"^at \d+\(\d+\): ")


class GrammarConstraint:
    """Let an answer say what a grammar allows; a `griffin.sampling.Forcing` constraint.

    matcher:    at the grammar's beginning; it belongs to this answer from now on.
    vocab_size: V, the ids of the tokenizer.
    end_ids:    ids that end an answer: allowed exactly where what was said is complete.
    forces:     the matcher looks ahead to where there is a choice, and may be asked for that.
    """

    def __init__(
        self, matcher: LLMatcher, vocab_size: int, end_ids: frozenset[int], forces: bool = False
    ) -> None:
        self._forces = forces
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._end_ids = end_ids
        self._ends = torch.tensor(
            sorted(id for id in end_ids if id < vocab_size), dtype=torch.int64
        )
        self._bits = np.zeros((vocab_size + 31) // 32, dtype=np.uint32)

    def allowed(self) -> Tensor:
        """Mark the ids that may come next, (V,) bool.

        Raises ConstraintError where the grammar needs more work at this place than it is given.
        """
        # One bit an id, the lowest first.
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8), count=self._vocab_size, bitorder="little")
        mask = torch.from_numpy(bits.view(np.bool_))
        mask[self._ends] = self._matcher.is_accepting()
        return mask

    def accept(self, id: int) -> bool:
        """Take the chosen id; return whether the answer is complete and nothing may follow.

        Raises ConstraintError for an id that is not allowed.
        """
        if id in self._end_ids:
            return True
        if not self._matcher.consume_token(id):
            self._check()
            raise ConstraintError(f"token {id} is not what the grammar allows here")
        return self._matcher.is_stopped()

    def forced(self) -> list[int]:
        """Return the ids that the grammar leaves no choice for, such as the next name in an object.

        None of rules as they are written down: what they force may have no end.
        """
        # Stopped is also what failed; `allowed` says why.
        if not self._forces or self._matcher.is_stopped():
            return []
        return self._matcher.compute_ff_tokens()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError(f"the grammar cannot go on: {brief(self._matcher.get_error())}")


def brief(error: str) -> str:
    """Return what an llguidance message says, without its view of the source and its state."""
    lines = [line.strip() for line in error.split("\n<")[0].splitlines()]
    text = " ".join(line for line in lines if line and not _PICTURE.match(line))
    text = _PLACE.sub("", text)
    return text if len(text) <= 300 else text[:297] + "..."
