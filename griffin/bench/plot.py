"""Measurements as a picture: speed and memory by context length, or bars beside their limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from griffin.bench.measurement import Measurement
from griffin.train.plot import COLOURS, new_figure, save_figure

_MARKERS = "osD^vPX"
_Series = dict[tuple[str, str, str], list[Measurement]]


def plot(measurements: Sequence[Measurement], path: str | Path) -> None:
    """Draw measurements into a PNG, SVG or PDF file.

    Where one program was measured at several contexts: tokens/s and resident memory against the
    context. Otherwise a bar a measurement, with a mark at its limit. ValueError if there is nothing
    to draw or no matplotlib to draw with.
    """
    drawn = [m for m in measurements if m.tokens_per_second is not None]
    if not drawn:
        raise ValueError("there is nothing to plot: no measurement has a number of tokens/s")
    series = _series(drawn)
    if any(len({m.context for m in line}) > 1 for line in series.values()):
        figure = new_figure(11, 4.2)
        _lines(figure, series)
    else:
        figure = new_figure(8, 1.2 + 0.42 * len(drawn))
        _bars(figure, drawn)
    save_figure(figure, Path(path))


def _series(measurements: Sequence[Measurement]) -> _Series:
    out: _Series = {}
    for m in measurements:
        out.setdefault((m.what, m.program, m.format), []).append(m)
    for line in out.values():
        line.sort(key=lambda m: m.context)
    return out


def _lines(figure: Any, series: _Series) -> None:
    from matplotlib import ticker

    kinds = list(dict.fromkeys(what for what, _, _ in series))
    axes = figure.subplots(1, len(kinds) + 1, squeeze=False)[0]
    looks = {}
    for _, program, format in series:
        looks.setdefault((program, format), (COLOURS[len(looks) % 7], _MARKERS[len(looks) % 7]))
    for (what, program, format), line in series.items():
        colour, marker = looks[program, format]
        style = {
            "color": colour,
            "marker": marker,
            "markersize": 4,
            "label": f"{program}, {format}",
        }
        x = [m.context for m in line]
        axis = axes[kinds.index(what)]
        axis.plot(x, [m.tokens_per_second for m in line], **style)
        axis.set_title(f"{what}, tokens/s")
        if what == kinds[-1]:
            known = [m for m in line if m.resident_bytes]
            axes[-1].plot(
                [m.context for m in known], [(m.resident_bytes or 0) / 1e9 for m in known], **style
            )
    axes[-1].set_title("resident memory, GB")
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(_tokens))
        axis.set_xlabel("tokens of context")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)


def _bars(figure: Any, measurements: Sequence[Measurement]) -> None:
    axis = figure.subplots()
    names = [
        f"{m.what}, {m.program}, {m.format}" + (f", {m.batch} rows" if m.batch > 1 else "")
        for m in measurements
    ]
    programs = list(dict.fromkeys(m.program for m in measurements))
    colours = [COLOURS[programs.index(m.program) % 7] for m in measurements]
    places = range(len(names))
    bars = axis.barh(places, [m.tokens_per_second for m in measurements], color=colours, height=0.6)
    axis.bar_label(bars, [_speed(m.tokens_per_second or 0.0) for m in measurements], padding=4)
    for place, m in zip(places, measurements, strict=True):
        if m.limit_tokens_per_second is not None:
            ends = [place - 0.38, place + 0.38]
            axis.plot([m.limit_tokens_per_second] * 2, ends, color="black", linewidth=2)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set_xlabel("tokens/s (black: the limit measured in the same run)")
    axis.spines[["top", "right"]].set_visible(False)


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _tokens(value: float, _place: object) -> str:
    if value >= 1 << 20:
        return f"{value / (1 << 20):g}M"
    return f"{value / 1024:g}k" if value >= 1024 else f"{value:g}"
