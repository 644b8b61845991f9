"""What a sitting reached of each limit, in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin.train.plot import COLOURS, new_figure, save_figure


def plot_report(report: Mapping[str, Any], path: Path) -> None:
    """Draw the share of its limit that each figure of a report has, into a PNG, SVG or PDF file.

    A mark stands where a figure was asked to be. ValueError if no figure of the report has a limit,
    or there is no matplotlib to draw with.
    """
    found = [
        (number, figure)
        for number, entry in enumerate(report["rows"])
        for figure in entry.get("figures", ())
        if figure.get("share") is not None
    ]
    if not found:
        raise ValueError("no figure of this report has a limit beside it: there is nothing to draw")
    picture = new_figure(11, 1.2 + 0.22 * len(found))
    axis = picture.subplots()
    for at, (number, figure) in enumerate(found):
        axis.barh(at, figure["share"], color=COLOURS[number % len(COLOURS)], height=0.7)
        said = f"{figure['value']:,.4g} {figure['unit']}"
        axis.text(figure["share"], at, f" {said}", va="center", fontsize=7)
        if (wanted := figure["wanted"]) is not None:
            less = figure["less"]
            share = figure["limit"] / wanted if less else wanted / figure["limit"]
            axis.plot(share, at, marker="|", color="black", markersize=9)
    axis.set_yticks(range(len(found)), [figure["what"] for _, figure in found], fontsize=7)
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xlabel("of the limit; a mark: what was asked")
    dry = " (of which no figure means anything)" if report.get("dry_run") else ""
    axis.set_title(f"{report.get('machine', {}).get('device', '')}{dry}", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(picture, path)
