"""The paper, in torch: `model(tokens, state) -> (logits, state)`; nothing else outlives a call.

Letters used for shapes everywhere: B batch, T tokens in this call, D model width, E lru width,
F mlp width, V vocabulary, N query heads, K key and value heads, H head width, G gate blocks,
W convolution width, S ring slots (the attention window).
"""

from griffin.model.config import PRESETS, GriffinConfig
from griffin.model.griffin import Griffin
from griffin.model.left import Left
from griffin.model.marks import Marks
from griffin.model.state import AttentionState, RecurrentState, State, StateShape
from griffin.model.trail import Trail
from griffin.model.tuned_state import TunedState

__all__ = [
    "PRESETS",
    "AttentionState",
    "Griffin",
    "GriffinConfig",
    "Left",
    "Marks",
    "RecurrentState",
    "State",
    "StateShape",
    "Trail",
    "TunedState",
]
