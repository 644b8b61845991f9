"""The layers of a state, of the kind that a test knows them to be."""

from __future__ import annotations

from griffin.model import AttentionState, RecurrentState, State


def recurrent(state: State, layer: int = 0) -> RecurrentState:
    """Return what one of a state's recurrent layers keeps."""
    found = state.layers[layer]
    assert isinstance(found, RecurrentState)
    return found


def attention(state: State, layer: int) -> AttentionState:
    """Return what one of a state's attention layers keeps."""
    found = state.layers[layer]
    assert isinstance(found, AttentionState)
    return found
