"""A list of tasks and suites, measured one after another, or only counted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from griffin.evaluate.counting import CountingLM
from griffin.evaluate.harness import UNSAFE, Harness, NotHere
from griffin.evaluate.results import Value, refused, values_of_row, values_of_task
from griffin.evaluate.suites import SUITES, SuiteRow, size_of

_KEY = "it needs a key of Perspective's, in PERSPECTIVE_API_KEY: its service judges each answer"


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What a task asks of a model. asked, read: tokens, each text alone, and beginnings once.
    written: the most tokens of its answers. refused: why it cannot be measured."""

    task: str
    asked: int = 0
    read: int = 0
    written: int = 0
    refused: str = ""


def measure(harness: Harness, names: Sequence[str], shots: int | None) -> Iterator[list[Value]]:
    """Yield what each task gives, in the order of `names`: suites, tasks, groups, files.

    shots: examples before each question, for tasks that are no suite's.
    What cannot be measured here is a Value that says why. ValueError for a name there is not.
    """
    llm = harness.lm.llm
    size = size_of(llm.model.config, llm.talks)
    for name, row in _rows(names):
        if row is None:
            try:
                yield list(values_of_task(harness.measure(name, shots)))
            except NotHere as error:
                yield [refused(name, str(error))]
        elif reason := _reason(row, harness.run_code):
            yield [refused(row.task, reason, row, size)]
        else:
            try:
                found = harness.measure(row.task, row.shots, row.more)
            except NotHere as error:
                yield [refused(row.task, str(error), row, size)]
            else:
                yield list(values_of_row(found, row, size))


def count(harness: Harness, names: Sequence[str], shots: int | None) -> Iterator[Counted]:
    """Yield what each task would ask of the model, which is not asked."""
    for name, row in _rows(names):
        task = row.task or row.name if row else name
        if row is not None and (reason := _reason(row, harness.run_code)):
            yield Counted(task=task, refused=reason)
            continue
        lm = CountingLM(harness.lm.llm)
        try:
            harness.measure(task, row.shots if row else shots, lm=lm)
        except NotHere as error:
            yield Counted(task=task, refused=str(error))
        else:
            yield Counted(task=task, asked=lm.asked, read=lm.read, written=lm.written)


def total(parts: Sequence[Counted]) -> Counted:
    """Return the sum of what tasks ask."""
    whole = Counted(task="all")
    for part in parts:
        whole = replace(
            whole,
            asked=whole.asked + part.asked,
            read=whole.read + part.read,
            written=whole.written + part.written,
        )
    return whole


def _rows(names: Sequence[str]) -> Iterator[tuple[str, SuiteRow | None]]:
    for name in names:
        if name in SUITES:
            yield from ((name, row) for row in SUITES[name])
        else:
            yield name, None


def _reason(row: SuiteRow, run_code: bool) -> str:
    """Return why a row of a suite is not measured, before anything of it is loaded."""
    if row.refused:
        return row.refused
    if row.code and not run_code:
        return UNSAFE
    if row.task == "realtoxicityprompts" and not os.environ.get("PERSPECTIVE_API_KEY"):
        return _KEY
    return ""
