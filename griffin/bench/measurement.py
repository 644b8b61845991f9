"""A measurement and its report: plain values, the same on screen, in JSON and in a plot."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from griffin.outputs import whole_file


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one program did, and the limit of the machine it did it on.

    what:       "decode", "prefill", "engine", "load", "conversation, cold", ... or a kernel's name.
    program:    "griffin", or the rival's name.
    threads, batch, context: CPU threads, sequences at once, tokens each had read when the clock
                started (for a prefill: how many it read).
    samples:    tokens/s of each round, all sequences together; `tokens_per_second` is their median.
    seconds:    of one token (or of the whole, for "load" and "resume"); the median.
    bytes_per_token, operations_per_token: what has to move and be multiplied, from the tensors
                themselves.
    read_bytes_per_second, operations_per_second: the machine's rates, measured in the same run.
    limit_tokens_per_second: the most those rates allow; None where no rate was measured.
    ratio:      tokens_per_second / limit_tokens_per_second.
    resident_bytes, peak_resident_bytes: of the program's process, now and at most during this
                measurement.
    kept_bytes_per_token, loss, groups: of a training step: what its forward pass keeps for the
                backward one, the nats of a target, and its seconds by group, where asked for.
    """

    what: str
    program: str
    model: str
    format: str
    threads: int
    batch: int
    context: int
    tokens_per_second: float | None
    seconds: float | None
    bytes_per_token: float | None
    operations_per_token: float | None
    read_bytes_per_second: float | None
    operations_per_second: float | None
    limit_tokens_per_second: float | None
    ratio: float | None
    resident_bytes: int | None = None
    peak_resident_bytes: int | None = None
    samples: tuple[float, ...] = ()
    kept_bytes_per_token: float | None = None
    loss: float | None = None
    groups: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"samples": list(self.samples)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Measurement:
        """Build a measurement from its JSON; ValueError for fields that are unknown or missing."""
        known = {f.name for f in dataclasses.fields(cls)}
        needed = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        wrong = sorted(set(fields) - known) + sorted(needed - set(fields))
        if wrong:
            raise ValueError(f"not a measurement: unknown or missing fields {', '.join(wrong)}")
        return cls(**{**fields, "samples": tuple(fields.get("samples", ()))})


def limit(
    bytes_per_token: float | None,
    read_rate: float | None,
    operations_per_token: float | None = None,
    operation_rate: float | None = None,
) -> float | None:
    """Return the most tokens/s that bytes and operations both allow; None without rates."""
    seconds = [
        amount / rate
        for amount, rate in ((bytes_per_token, read_rate), (operations_per_token, operation_rate))
        if amount and rate
    ]
    return 1 / max(seconds) if seconds else None


def measured(
    what: str,
    place: dict[str, Any],
    samples: Sequence[float],
    work: dict[str, float],
    read_rate: float | None,
    operation_rate: float | None,
    memory: dict[str, int] | None = None,
    **others: Any,
) -> Measurement:
    """Put a measurement together from the tokens/s of each round.

    place:  program, model, format, threads, batch and context.
    work:   "bytes" and "operations" a token needs.
    memory: "resident" and "peak" bytes. others: more fields of it.
    """
    speed = statistics.median(samples)
    most = limit(work["bytes"], read_rate, work["operations"], operation_rate)
    memory = memory or {}
    return Measurement(
        what=what,
        **place,
        tokens_per_second=speed,
        seconds=1 / speed,
        bytes_per_token=work["bytes"],
        operations_per_token=work["operations"],
        read_bytes_per_second=read_rate,
        operations_per_second=operation_rate,
        limit_tokens_per_second=most,
        ratio=None if most is None else speed / most,
        resident_bytes=memory.get("resident"),
        peak_resident_bytes=memory.get("peak"),
        samples=tuple(samples),
        **others,
    )


def timed(
    what: str,
    place: dict[str, Any],
    seconds: float,
    memory: dict[str, int],
    *,
    speed: float | None = None,
    most: float | None = None,
    nbytes: float | None = None,
    read_rate: float | None = None,
    samples: Sequence[float] = (),
) -> Measurement:
    """Put a measurement together of something that took `seconds`; what does not apply stays None.

    speed, most: tokens/s, and the most there could be. nbytes: that a token needed.
    """
    return Measurement(
        what=what,
        **place,
        tokens_per_second=speed,
        seconds=seconds,
        bytes_per_token=nbytes,
        operations_per_token=None,
        read_bytes_per_second=read_rate,
        operations_per_second=None,
        limit_tokens_per_second=most,
        ratio=None if speed is None or most is None else speed / most,
        resident_bytes=memory["resident"],
        peak_resident_bytes=memory["peak"],
        samples=tuple(samples),
    )


def save_text(path: str | Path, text: str) -> None:
    """Write a file; a reader sees the old one or the whole new one."""
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


@dataclass(kw_only=True)
class Report:
    """A run: how it was asked for, where, and what it measured.

    rates: name -> bytes or operations a second, the median of the run's probes.
    notes: what did not happen and why, such as a rival that was stopped.
    """

    command: str
    commit: str | None
    machine: dict[str, Any]
    rates: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    def to_json(self) -> str:
        fields = {**vars(self), "measurements": [m.to_dict() for m in self.measurements]}
        return json.dumps(fields, indent=1) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the report; a reader sees the old file or the whole new one."""
        save_text(path, self.to_json())

    @classmethod
    def open(cls, path: str | Path) -> Report:
        """Read a report, also of the form that was written before `griffin bench` existed.

        ValueError, with the file's name, for a file that is no report.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(fields, dict):
                raise ValueError("it holds no JSON object")
            if "results" in fields:
                return _first_form(fields)
            lacks = sorted({"command", "commit", "machine", "measurements"} - set(fields))
            if lacks:
                raise ValueError(f"it lacks {', '.join(lacks)}")
            measurements = [Measurement.from_dict(m) for m in fields.pop("measurements")]
            return cls(**fields, measurements=measurements)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is not a report of griffin bench: {error}") from error


def _first_form(fields: dict[str, Any]) -> Report:
    """Read docs/benchmarks/torch-2b.json: one entry a program, without limits."""
    found: list[Measurement] = []
    for entry in fields["results"]:
        for what in ("prefill", "decode"):
            speed = entry[f"{what}_tokens_per_second"]
            nothing = dict.fromkeys(
                (
                    "bytes_per_token",
                    "operations_per_token",
                    "read_bytes_per_second",
                    "operations_per_second",
                )
            )
            found.append(
                Measurement(
                    what=what,
                    program=entry["what"],
                    model=fields["command"].split()[1],
                    format="bf16",
                    threads=2,
                    batch=1,
                    context=fields["prompt"],
                    tokens_per_second=speed,
                    seconds=1 / speed,
                    **nothing,
                    limit_tokens_per_second=None,
                    ratio=None,
                    peak_resident_bytes=entry["peak_resident_bytes"],
                )
            )
    machine = {"machine": fields["machine"]}
    return Report(
        command=fields["command"], commit=fields["commit"], machine=machine, measurements=found
    )
