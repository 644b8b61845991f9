"""What may stand for a prompt: a text, ids, a context."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, cast

from griffin.engine import Context
from griffin.text import Tokenizer

Prompt = str | Sequence[int] | Context
_BYTES = (bytes, bytearray, memoryview)


def is_one(prompt: Any) -> bool:
    """Return whether this is one prompt, and no list of them; ValueError for neither, and for an
    empty one."""
    if isinstance(prompt, (str, Context)):
        return True
    if not isinstance(prompt, Iterable) or isinstance(prompt, _BYTES):
        raise ValueError(
            f"a prompt is a string, a list of ids or a list of prompts, not {_shown(prompt)}"
        )
    if not len(cast(Sequence[Any], prompt)):
        raise ValueError("the prompt is empty; a model needs at least one token to go on from")
    return isinstance(next(iter(prompt)), Integral)


def context_of(prompt: Prompt, tokenizer: Tokenizer) -> Context:
    """Return what a prompt says to go on from; a string has BOS before it. ValueError for an empty
    one, and for ids that are no whole numbers."""
    if isinstance(prompt, Context):
        return prompt
    if isinstance(prompt, str):
        if not prompt:
            raise ValueError(
                f"the prompt is empty; give some text, or [{tokenizer.bos_id}] (BOS) to"
                " begin freely"
            )
        ids = tuple(tokenizer.encode(prompt))
    else:
        prompt = plain(prompt)
        if not isinstance(prompt, Iterable) or isinstance(prompt, _BYTES):
            raise ValueError(
                f"a prompt is a string, a list of ids or a Context, not {_shown(prompt)}"
            )
        for place, i in enumerate(prompt):
            if not isinstance(i, Integral) or isinstance(i, bool):
                raise ValueError(
                    f"a prompt of ids holds {i!r} at position {place}; ids are whole numbers"
                )
        ids = tuple(int(i) for i in prompt)
    return Context().then(ids)


def _shown(prompt: object) -> str:
    return "bytes: decode them" if isinstance(prompt, _BYTES) else repr(prompt)


def plain(prompt: Any) -> Any:
    """Return an array's or a tensor's ids as a list, what is no array as it is."""
    if not (hasattr(prompt, "tolist") and hasattr(prompt, "ndim")):
        return prompt
    if prompt.ndim not in (1, 2):
        raise ValueError(
            f"a prompt of ids has one dimension, several prompts two; this one has {prompt.ndim}"
        )
    return prompt.tolist()
