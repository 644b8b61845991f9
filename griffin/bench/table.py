"""Measurements as a table for people: what was reached, what it took, and what was possible."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from griffin.bench.measurement import Measurement, Report


def table(measurements: Sequence[Measurement]) -> Table:
    """Return a table with one row a measurement."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    memory = any(m.peak_resident_bytes for m in measurements)
    for name in ("what", "program", "format"):
        out.add_column(name, no_wrap=True)
    for name in (
        "threads",
        "batch",
        "context",
        "tokens/s",
        "time",
        "bytes/token",
        "ops/token",
        "limit",
        "ratio",
    ):
        out.add_column(name, justify="right", no_wrap=True)
    kept = any(m.kept_bytes_per_token for m in measurements)
    if memory:
        out.add_column("peak memory", justify="right", no_wrap=True)
    if kept:
        out.add_column("kept/token", justify="right", no_wrap=True)
        out.add_column("loss", justify="right", no_wrap=True)
    for m in measurements:
        row = [
            *(m.what, m.program, m.format, str(m.threads), str(m.batch), f"{m.context:,}"),
            "" if m.tokens_per_second is None else f"{m.tokens_per_second:,.4g}",
            "" if m.seconds is None else duration(m.seconds),
            amount(m.bytes_per_token, "B"),
            amount(m.operations_per_token, ""),
            "" if m.limit_tokens_per_second is None else f"{m.limit_tokens_per_second:,.4g}",
            "" if m.ratio is None else f"{m.ratio:.1%}",
        ]
        row += [amount(m.peak_resident_bytes, "B")] if memory else []
        if kept:
            loss = "" if m.loss is None else f"{m.loss:.4g}"
            row += [amount(m.kept_bytes_per_token, "B"), loss]
        out.add_row(*row)
    return out


def groups(measurements: Sequence[Measurement]) -> Table:
    """Return where the time of training steps goes: a row a group, a column a program."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("of a step", no_wrap=True)
    profiled = [m for m in measurements if m.groups]
    for m in profiled:
        out.add_column(f"{m.program}, {m.context:,}", justify="right", no_wrap=True)
    for name in profiled[0].groups:
        parts = [(m.groups[name], m.groups[name] / sum(m.groups.values())) for m in profiled]
        out.add_row(name, *(f"{duration(seconds)} {share:4.0%}" for seconds, share in parts))
    return out


def rates(report: Report) -> Table:
    """Return the machine's rates of a run."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("measured on this machine in this run", no_wrap=True)
    out.add_column("rate", justify="right", no_wrap=True)
    for name, rate in report.rates.items():
        out.add_row(name, amount(rate, "B/s" if name.startswith("read") else "op/s"))
    return out


def amount(value: float | None, unit: str) -> str:
    """Return a number with a decimal prefix: 5,366,000,000 B is "5.37 GB"."""
    if not value:
        return ""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def duration(seconds: float) -> str:
    """Return seconds with a unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
