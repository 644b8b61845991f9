"""A second model beside the one that is trained: an anchor that follows it, a start that stays."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from griffin.model import Griffin


class Twin:
    """A model with values of its own for what another one trains, on the same tensors otherwise.

    Beside a LoRA it is a second adapter on one base; beside a model that is trained as a whole, a
    second model. It begins with the values that the other has now.
    """

    def __init__(self, policy: Griffin) -> None:
        tensors = (*policy.parameters(), *policy.buffers())
        shared = {id(tensor): tensor for tensor in tensors if not tensor.requires_grad}
        self.model = copy.deepcopy(policy, shared).eval()
        named = dict(self.model.named_parameters())
        self._pairs = [
            (name, named[name].requires_grad_(False), theirs)
            for name, theirs in policy.named_parameters()
            if theirs.requires_grad
        ]

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move every value a share of the way to the policy's: own + share (theirs - own).

        Of a LoRA these are its A and B. Their averages' product is not the average of their
        products: the twin stays an adapter of the same rank.
        """
        for _, own, theirs in self._pairs:
            own.lerp_(theirs, share)

    def tensors(self, prefix: str) -> Mapping[str, Tensor]:
        """Return the own values by name; a checkpoint keeps them and fills them."""
        return {f"{prefix}.{name}": own.detach() for name, own, _ in self._pairs}
