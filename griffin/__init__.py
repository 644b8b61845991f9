"""RecurrentGemma and Griffin language models: exact, fast, with a state of fixed size.

Names are resolved when they are first used, so `import griffin` costs nothing and imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from griffin import ops
    from griffin.answer import Piece, Result, Stream
    from griffin.document import Document
    from griffin.engine import Context
    from griffin.grammar import Grammar
    from griffin.llm import LLM, Score
    from griffin.loading import load, load_model
    from griffin.model import Griffin, GriffinConfig, State
    from griffin.sampling import SamplingParams

__all__ = [
    "LLM",
    "Context",
    "Document",
    "Grammar",
    "Griffin",
    "GriffinConfig",
    "Piece",
    "Result",
    "SamplingParams",
    "Score",
    "State",
    "Stream",
    "__version__",
    "load",
    "load_model",
    "ops",
]

_WHERE = {
    "Context": "griffin.engine",
    "Document": "griffin.document",
    "Grammar": "griffin.grammar",
    "Griffin": "griffin.model",
    "GriffinConfig": "griffin.model",
    "LLM": "griffin.llm",
    "Piece": "griffin.answer",
    "Result": "griffin.answer",
    "SamplingParams": "griffin.sampling",
    "Score": "griffin.llm",
    "State": "griffin.model",
    "Stream": "griffin.answer",
    "load": "griffin.loading",
    "load_model": "griffin.loading",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name == "ops":
        value = import_module("griffin.ops")
    else:
        raise AttributeError(
            f"module 'griffin' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
