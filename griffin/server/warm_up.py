"""Everything that a first request would import or prepare, before it comes."""

from __future__ import annotations

import importlib
import time
from contextlib import suppress

import torch

from griffin.llm import LLM

_LATE = ("llguidance", "griffin.grammar.grammars", "encodings.idna", "multiprocessing")


def warm_up(llm: LLM, chunk: int) -> float:
    """Let the model take two calls; return how long one of `chunk` tokens takes at most, about.

    What is imported late needs a file descriptor, and those may be in use by then.
    """
    for name in _LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    model = llm.model
    tokens = torch.full((1, 2), llm.tokenizer.bos_id, dtype=torch.int64, device=model.device)
    seconds = 0.0
    with torch.no_grad():
        _, state = model.trunk(tokens, None)
        for _ in range(2):  # the first of its kind prepares
            begun = time.perf_counter()
            hidden, state = model.trunk(tokens, state, donate=True)
            model.unembed(hidden[:, -1:])
            seconds = time.perf_counter() - begun
        model.trunk(tokens[:, :1], state, donate=True)
    return seconds * chunk / 2
