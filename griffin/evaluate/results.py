"""What was measured, beside what the paper reports: a table for people, plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from griffin.evaluate.suites import SuiteRow

_HEAD: tuple[str, ...] = ("", "task", "shots", "metric", "value", "+-", "n", "paper", "difference")


@dataclass(frozen=True, kw_only=True)
class Value:
    """A metric of a task.

    name:   what the paper calls the benchmark; "" for a task that was asked for by its own name.
    task, version, shots, metric: as lm-eval has them. n: how many questions.
    value, stderr: in percent in a table of the paper's, else as lm-eval gives them. stderr is None
            where it gives none.
    paper:  the paper's value in percent, None where it has none for this model.
    note:   what is known to differ. refused: why there is no value.
    """

    name: str = ""
    task: str
    metric: str = ""
    version: str = ""
    shots: int | None = None
    n: int = 0
    value: float | None = None
    stderr: float | None = None
    paper: float | None = None
    note: str = ""
    refused: str = ""

    @property
    def difference(self) -> float | None:
        """How far the value is above the paper's."""
        return None if self.value is None or self.paper is None else self.value - self.paper

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference}


def refused(task: str, reason: str, row: SuiteRow | None = None, size: str = "") -> Value:
    """Return that a task was not measured, and why."""
    if row is None:
        return Value(task=task, refused=reason)
    paper = row.paper.get(size)
    return Value(name=row.name, task=row.task, paper=paper, note=row.note, refused=reason)


def values_of_row(found: Mapping[str, Any], row: SuiteRow, size: str) -> Iterator[Value]:
    """Yield what lm-eval found for a row of the paper's, the paper's metric first."""
    for place, metric in enumerate((*row.metrics, *row.more)):
        value = _value(found, row.task, metric, row.name, scale=100.0)
        paper = row.paper.get(size) if place == 0 else None
        yield Value(**{**asdict(value), "paper": paper, "note": "" if place else row.note})


def values_of_task(found: Mapping[str, Any]) -> Iterator[Value]:
    """Yield every metric that lm-eval found, of tasks and groups."""
    for task, metrics in found["results"].items():
        for metric, value in metrics.items():
            if "," in metric and "_stderr," not in metric and isinstance(value, (int, float)):
                yield _value(found, task, metric)


def _value(
    found: Mapping[str, Any], task: str, metric: str, name: str = "", scale: float = 1.0
) -> Value:
    metrics = found["results"][task]
    kind, _, filter = metric.partition(",")
    error = metrics.get(f"{kind}_stderr,{filter}")
    members = [task] if task in found["n-samples"] else _members(found, task)
    return Value(
        name=name,
        task=task,
        metric=metric.removesuffix(",none"),
        version=str(found["versions"].get(task, "")),
        shots=next((found["n-shot"][each] for each in members if each in found["n-shot"]), None),
        n=sum(found["n-samples"][each]["effective"] for each in members),
        value=_number(metrics[metric], scale),
        stderr=_number(error, scale),
    )


def _members(found: Mapping[str, Any], group: str) -> list[str]:
    """Return the tasks of a group, of its groups too."""
    tasks = list[str]()
    for name in found["group_subtasks"].get(group, ()):
        tasks += [name] if name in found["n-samples"] else _members(found, name)
    return tasks


def _number(value: Any, scale: float) -> float | None:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value) * scale


def table(values: Sequence[Value]) -> str:
    """Return values as a table for a terminal, with what is known to differ below."""
    notes = list[str]()
    rows = [_HEAD]
    for each in values:
        name = each.name
        if each.note:
            if each.note not in notes:
                notes.append(each.note)
            name += f" [{notes.index(each.note) + 1}]"
        if each.refused:
            rows.append((name, each.task, "", f"not measured: {each.refused}", *[""] * 5))
            continue
        places = 1 if each.name else 4
        shots = "" if each.shots is None else str(each.shots)
        number = _shown(each.value, places), _shown(each.stderr, places), f"{each.n:,}"
        beside = _shown(each.paper, 1), _shown(each.difference, 1, sign="+")
        rows.append((name, each.task, shots, each.metric, *number, *beside))
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [
        max(len(cell) for cell in column if not cell.startswith("not measured"))
        for column in columns
    ]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join([*lines, *(f"[{place}] {note}" for place, note in enumerate(notes, 1))])


def _shown(value: float | None, places: int, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.{places}f}"
