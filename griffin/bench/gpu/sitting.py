"""A sitting: rows in order of worth within a budget, the report written after each of them."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from griffin.bench.gpu.figure import Figure, Waits
from griffin.bench.gpu.scene import Scene
from griffin.bench.measurement import save_text

Outcome = Literal["done", "failed", "left out", "waits"]


@dataclass(frozen=True, kw_only=True)
class SittingRow:
    """One row of a sitting.

    name:    what --only takes. about: what it does, in words.
    seconds: it is given on the true shapes; a row is begun only where so many are left.
    run:     yields figures as it goes; raises Waits where something it needs is not there.
    """

    name: str
    seconds: float
    about: str
    run: Callable[[Scene], Iterator[Figure]]


class Sitting:
    """Rows that are measured one after another.

    budget: seconds for all of them. out: the report's file, written whole after each row.
    tell:   called with the row that begins, and with (row, outcome) when it is over.
    """

    def __init__(
        self,
        scene: Scene,
        about: dict[str, Any],
        *,
        budget: float,
        out: Path | None = None,
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.scene = scene
        self.report: dict[str, Any] = {**about, "dry_run": scene.dry, "budget": budget, "rows": []}
        self._budget = budget
        self._out = out
        self._tell = tell
        self._begun = time.perf_counter()

    @property
    def left(self) -> float:
        """Seconds left of the budget."""
        return self._budget - (time.perf_counter() - self._begun)

    def run(self, rows: Sequence[SittingRow]) -> None:
        """Measure rows; one that fails, or for which too little time is left, is said to be so.

        KeyboardInterrupt ends the sitting; what the row at hand has measured is in the report.
        """
        for row in rows:
            entry: dict[str, Any] = {"row": row.name, "about": row.about, "figures": []}
            self.report["rows"].append(entry)
            # A dry run is short of nothing: toy shapes take no row's time.
            if self.left < (0 if self.scene.dry else row.seconds):
                why = f"it takes {row.seconds:.0f} s, and {max(self.left, 0):.0f} s are left"
                self._over(entry, "left out", 0.0, why)
                continue
            self._tell(f"{row.name}: {row.about}")
            begun = time.perf_counter()
            try:
                for figure in row.run(self.scene):
                    entry["figures"].append(figure.to_dict())
            except Waits as error:
                self._over(entry, "waits", time.perf_counter() - begun, str(error))
            except Exception as error:
                took = time.perf_counter() - begun
                self._over(entry, "failed", took, f"{type(error).__name__}: {error}")
                entry["traceback"] = traceback.format_exc()
                self._save()
            except BaseException:
                self._over(entry, "failed", time.perf_counter() - begun, "it was interrupted")
                raise
            else:
                self._over(entry, "done", time.perf_counter() - begun)

    def _over(self, entry: dict[str, Any], outcome: Outcome, seconds: float, why: str = "") -> None:
        entry |= {"outcome": outcome, "seconds": round(seconds, 3), "why": why}
        self._save()
        said = f" ({why})" if why else ""
        self._tell(f"{entry['row']}: {outcome}, {seconds:.1f} s{said}")

    def _save(self) -> None:
        if self._out is not None:
            save_text(self._out, json.dumps(self.report, indent=1, allow_nan=False) + "\n")
