"""What training asks of a model: one `forward`, from rows to their loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from griffin.model import Griffin, State
from griffin.train.data.rows import TrainBatch
from griffin.train.embedding import add_in_place
from griffin.train.loss import row_nats


class Objective(nn.Module):
    """A model and the loss of its rows as one module, whose `forward` uses every weight.

    That is what torch's `fully_shard` expects, which gathers split weights around `forward`.
    model: its embedding is replaced by one over the same weights, whose gradient is added in place
    (`add_in_place`). dtype: of the matrix products; bfloat16 runs the trunk under autocast over
    float32 weights.
    """

    def __init__(self, model: Griffin, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        add_in_place(model)
        self.griffin = model
        self.dtype = dtype

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor,
        segment_pos: Tensor,
        mask: Tensor,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        """Return the summed nats of the targets, a float32 scalar, and the state after the rows.

        tokens to mask are as in TrainBatch. state: what was read before the rows, where they go on.
        No gradient flows into it, nor from the state that is returned.
        """
        batch = TrainBatch(tokens, targets, segment_pos, mask)
        nats, after = row_nats(self.griffin, batch, self.dtype, in_place=True, state=state)
        return nats, after.map(Tensor.detach)
