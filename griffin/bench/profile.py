"""Where a step's time goes: torch's profile, its operators gathered into a few groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

OTHER = "norms, gates and other passes"
# group -> what stands in the names of its operators, the first that fits. What an operator calls
# belongs to it, so what is named here takes its own products along.
_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("optimiser", ("optimizer.step", "foreach_norm", "foreach_mul", "vector_norm", "adam")),
    ("loss", ("crossentropy",)),
    ("attention", ("attention", "scaleddotproduct")),
    ("recurrent unit", ("lru", "recurrent", "_unit", "linear_scan", "causal_conv", "convolution")),
    (
        "products",
        (
            "straightthrough",
            "_linear",
            "::mm",
            "addmm",
            "::bmm",
            "baddbmm",
            "mkldnn_linear",
            "aten::linear",
        ),
    ),
)


@dataclass
class Profile:
    """Seconds of one run by group: the processor's time of the thread that ran it."""

    groups: dict[str, float]

    @classmethod
    def of(cls, run: Callable[[], Any]) -> Profile:
        """Run something once under torch's profiler."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            run()
        groups = dict.fromkeys((*(name for name, _ in _GROUPS), OTHER), 0.0)
        events: Iterable[Any] = profiler.events() or ()
        for event in events:
            groups[_group(event)] += event.self_cpu_time_total / 1e6
        return cls(groups)


def _group(event: Any) -> str:
    """Return the group of an event: that of the outermost operator around it that has one.

    A product is a group only where nothing around it is.
    """
    chain = []
    while event is not None:
        chain.append(event.name.lower())
        event = event.cpu_parent
    for group, words in _GROUPS:
        if any(word in name for name in chain for word in words):
            return group
    return OTHER
