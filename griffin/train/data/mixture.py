"""Several sources read as one: which row of which source row number n of the run is.

Rows are dealt to the sources by weight (apportion.py), anew at the border of a stage and where a
source has given all its epochs, which leaves its part to the others. All such borders are found
before the first row, from numbers of rows alone, so any row is found without those before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from griffin.train.data.apportion import Shares
from griffin.train.data.rows import Packer, TrainBatch, join
from griffin.train.data.store import TokenStore
from griffin.train.recipe import Recipe, TrainRecipe


@dataclass(frozen=True)
class Ingredient:
    """Name one source of a mixture. epochs: how often it may be read, 0 for any number of times."""

    name: str
    packer: Packer
    epochs: float = 0.0


@dataclass(frozen=True)
class Portion:
    """Say how a part of a run is mixed. rows: how many it has; weights: one for each source."""

    name: str
    rows: int
    weights: tuple[float, ...]


@dataclass(frozen=True)
class _Segment:
    """A run of units from `start` on with the same sources; done: units of each read before it."""

    start: int
    shares: Shares
    done: list[int]


class Mixture:
    """Read rows of several sources, in one order for all workers and ranks.

    together: how many rows are dealt at once, all of one source, a unit: 1, or with carried states
              a micro-batch, whose rows go on with those of the unit before it of the same source.
    Raises ValueError where the epochs of all sources are read before the portions are.
    """

    def __init__(
        self, sources: Sequence[Ingredient], portions: Sequence[Portion], together: int = 1
    ) -> None:
        self.sources, self.together = tuple(sources), together
        most = [
            source.packer.rows_in(source.epochs) // together if source.epochs else None
            for source in sources
        ]
        self._segments, start, done = list[_Segment](), 0, [0] * len(sources)
        for portion in portions:
            end = start + portion.rows // together
            while start < end:
                weights = [
                    weight if limit is None or count < limit else 0.0
                    for weight, limit, count in zip(portion.weights, most, done, strict=True)
                ]
                if not any(weights):
                    self._refuse(portion, start, sum(p.rows for p in portions))
                shares = Shares(weights)
                self._segments.append(_Segment(start, shares, done))
                # Until a source that is read here has given its last unit.
                gone = [
                    shares.place(source, limit - done[source] - 1) + 1
                    for source, limit in enumerate(most)
                    if limit is not None and weights[source]
                ]
                read = min([end - start, *gone])
                done = [had + new for had, new in zip(done, shares.before(read), strict=True)]
                start += read
        self._starts = [segment.start for segment in self._segments]

    @classmethod
    def of(cls, recipe: Recipe, stores: Mapping[str, TokenStore]) -> tuple[Mixture, TrainRecipe]:
        """Return how a recipe's sources are read, and its [train] with a budget in steps."""
        plan, tables = recipe.train, isinstance(recipe.data.source, tuple)
        streams = plan.rows if plan.carry else 0
        sources = []
        for source in recipe.data.sources:
            # A name's own number, so that sources come and go without another's order changing.
            own = [source.seed, int.from_bytes(source.name.encode())] if tables else []
            seeds, store = [plan.seed, *own], stores[source.name]
            try:
                packer = Packer(store, plan.length, seeds, recipe.data.packing, streams)
            except ValueError as error:
                raise ValueError(f"data.source {source.name!r}: {error}") from error
            sources.append(Ingredient(source.name, packer, source.epochs))
        if plan.epochs:
            plan = plan.in_steps(sum(each.packer.rows_in(plan.epochs) for each in sources))
        portions = [
            Portion(
                stage.name,
                steps * plan.rows * plan.accumulation,
                tuple(
                    stage.weights.get(source.name, 0.0) if stage.weights else source.weight
                    for source in recipe.data.sources
                ),
            )
            for stage, steps in plan.stages
        ]
        return cls(sources, portions, streams or 1), plan

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the first epoch of all sources."""
        return self.rows_in(1)

    def batch(self, first_row: int, rows: int) -> TrainBatch:
        """Return `rows` rows from `first_row` on, counted from training's start."""
        places = (self.place(row) for row in range(first_row, first_row + rows))
        return join(self.sources[source].packer.fill(row) for source, row in places)

    def documents(self, row: int) -> list[tuple[str, int]]:
        """Return the documents in a row, by path, and at which of its tokens each begins there."""
        source, row = self.place(row)
        return self.sources[source].packer.documents(row)

    def place(self, row: int) -> tuple[int, int]:
        """Return which source a row comes from, and its number among the rows of that source."""
        unit, within = divmod(row, self.together)
        segment = self._segments[bisect_right(self._starts, unit) - 1]
        source, number = segment.shares.at(unit - segment.start)
        return source, (segment.done[source] + number) * self.together + within

    def read(self, rows: int) -> list[int]:
        """Return how many rows of each source are among the first rows of the run."""
        unit, within = divmod(rows, self.together)
        segment = self._segments[bisect_right(self._starts, unit) - 1]
        counts = [
            (had + new) * self.together
            for had, new in zip(
                segment.done, segment.shares.before(unit - segment.start), strict=True
            )
        ]
        if within:
            counts[self.place(rows)[0]] += within
        return counts

    def rows_in(self, epochs: float) -> int:
        """Return how many rows the first epochs of all sources have together."""
        return sum(source.packer.rows_in(epochs) for source in self.sources)

    def progress(self, rows: int) -> dict[str, Any]:
        """Return, for the log, how far `rows` rows of the run are: `epoch`, how often all has been
        read, and with several `sources` of each its epoch and tokens, padding included."""
        counts = self.read(rows)
        each = {
            source.name: {
                "epoch": source.packer.epochs_at(count),
                "tokens": count * source.packer.length,
            }
            for source, count in zip(self.sources, counts, strict=True)
        }
        if len(each) == 1:
            [one] = each.values()
            return {"epoch": one["epoch"]}
        return {"epoch": rows / self.rows_per_epoch, "sources": each}

    def _refuse(self, portion: Portion, start: int, total: int) -> None:
        names = ", ".join(
            f"{source.name} ({source.epochs:g} epochs)"
            for source, weight in zip(self.sources, portion.weights, strict=True)
            if weight
        )
        stage = f" in stage {portion.name!r}" if portion.name else ""
        raise ValueError(
            f"the budget is {total} rows, but after {start * self.together} of them{stage} all that"
            f" may be read of {names} has been; raise their `epochs`, or lower the budget"
        )
