"""What a block asks when the tokens before its own are read elsewhere, at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from griffin import ops
from griffin.model.state import AttentionState, RecurrentState

# From (u, segment_pos, cache) to decay and end (B, E): the last h is decay * h0 + end.
Carry = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Left(Protocol):
    """What stands left of a call's tokens in rows that several readers share, a piece each.

    All readers run the same layer at the same time. A block gives what its piece comes to there,
    and takes the state that it would have after the pieces before.
    """

    def recurrent(
        self, u: Tensor, segment_pos: Tensor, state: RecurrentState, carry: Carry
    ) -> RecurrentState:
        """Return a recurrent block's state before the piece.

        u:           (B, T, E), the inputs of its convolution.
        segment_pos: (B, T) int64, positions of the piece in its documents.
        state:       that before the first piece of all.
        carry:       what the block makes of its piece, given the inputs before it.
        """
        ...

    def attention(
        self, k: Tensor, v: Tensor, window: ops.Window, state: AttentionState
    ) -> AttentionState:
        """Return an attention block's state before the piece, in the type of k.

        k, v:   (B, T, K, H), keys already rotated.
        window: of the piece, planned to go on from its first position.
        state:  that before the first piece of all.
        """
        ...
