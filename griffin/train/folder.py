"""A run's folder: whose it is, who trains in it now, and what its log says."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from griffin.checkpoints.staging import remove_partial
from griffin.train.checkpoint import holds_any, newest_step
from griffin.train.files import write_json, writing
from griffin.train.optim import learning_rate
from griffin.train.recipe import Recipe, TrainRecipe
from griffin.train.recipe.train import BUDGETS
from griffin.train.run_log import RunLog

CHECKPOINTS, _LOG = "checkpoints", "log.jsonl"


class Claim(NamedTuple):
    """Say what a folder holds for a recipe: prepared data (known), a run that has checkpoints
    (begun)."""

    known: bool
    begun: bool


class RunFolder:
    """A folder that this process alone trains in, from `claimed` to `close`.

    writes: False for a process that helps the one that has the folder: it reads alone.
    say: told what a person should know.
    """

    def __init__(
        self, path: Path, writes: bool = True, say: Callable[[str], object] = lambda line: None
    ) -> None:
        self.path, self.writes, self._say = path, writes, say
        self.checkpoints = path / CHECKPOINTS
        # How many rows some epochs have, for budgets in epochs: known when the data is.
        self.rows_in: Callable[[float], int] | None = None
        self._lock: int | None = None

    def _take(self) -> None:
        """Keep other processes out; ValueError, with the other's process id, if one has it."""
        path = self.path
        _make(path)
        with writing(path / "run.lock"):
            lock = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(lock)
            os.close(lock)
            raise ValueError(
                f"process {holder} is training in {path}; wait for it, stop it, or choose"
                " another --out"
            ) from None
        self._lock = lock
        with writing(path / "run.lock"):
            os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)
        remove_partial(path)

    def close(self) -> None:
        """Let others train here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextlib.contextmanager
    def claimed(self, recipe: Recipe, extend: bool = False) -> Iterator[Claim]:
        """Take the folder for a recipe; yield what it already holds.

        The folder becomes the recipe's (recipe.json) when the block ends without an exception, so a
        recipe that turns out impossible can be corrected and tried again. One that another recipe
        had, and left without a checkpoint, is taken and that is said. extend: the recipe's
        budget may be another than the run's, if the steps done are those of a run planned so.
        Raises ValueError if another recipe's run is there, or another process trains here.
        """
        if not self.writes:
            yield Claim(known=True, begun=True)
            return
        self._take()
        path, begun = self.path / "recipe.json", holds_any(self.checkpoints)
        known, extended, before = path.exists(), list[dict[str, Any]](), None
        if known:
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                theirs = Recipe.from_dict(kept["recipe"], recipe.folder)
                extended = list(kept.get("extended", []))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path} is not readable ({error}); choose another --out") from (
                    error
                )
            if theirs.digest() != recipe.digest() and begun:
                self._check_budget_alone(theirs, recipe, extend)
                before = theirs.train
            elif theirs.digest() != recipe.digest():
                listed, extended = _listed(_differences(theirs.deciding(), recipe.deciding())), []
                self._say(
                    f"{self.path} was another recipe's ({listed}) and has no checkpoint: this one"
                    " takes it"
                )
        yield Claim(known, begun)
        if before is not None:
            mixed = len(recipe.data.sources) > 1
            extended.append(self._extension(before, recipe.train, mixed))
        values: dict[str, Any] = {"digest": recipe.digest(), "recipe": recipe.to_dict()}
        values["model"] = recipe.model.to_dict()
        write_json(path, values | ({"extended": extended} if extended else {}))

    def _check_budget_alone(self, theirs: Recipe, ours: Recipe, extend: bool) -> None:
        """Raise ValueError unless the recipes differ in their budgets alone, and may."""
        differences = _differences(theirs.deciding(), ours.deciding())
        budgets = tuple(f"train.{key}" for key in BUDGETS)
        budget = all(name.partition("[")[0] in budgets for name in differences)
        if not (extend and budget):
            hint = (
                "--extend goes on with another budget"
                if budget
                else "give it what is there, or choose another --out"
            )
            raise ValueError(
                f"{self.path} holds a run of another recipe ({_listed(differences)}); {hint}"
            )

    def _extension(self, theirs: TrainRecipe, ours: TrainRecipe, mixed: bool) -> dict[str, Any]:
        """Return what is recorded of an extension; ValueError if the steps done were others.

        mixed: rows come from several sources, which are dealt anew where a stage begins.
        """
        old, new = (
            plan.in_steps(self.rows_in(plan.epochs)) if self.rows_in else plan
            for plan in (theirs, ours)
        )
        done, total = newest_step(self.checkpoints), new.total_steps
        if total < done:
            raise ValueError(f"{self.path} has done {done} steps; the new budget has {total}")
        for step in range(done):
            if (was := learning_rate(step, old)) != (planned := learning_rate(step, new)):
                raise ValueError(
                    f"this run cannot be extended: its {old.schedule} was planned to end after"
                    f" {old.total_steps} steps, so step {step + 1} had the rate {was:.3g}; in a run"
                    f" of {total} steps it has {planned:.3g}. A run of schedule 'constant' can be"
                    " extended at any time, one of 'wsd' before its decay"
                )
            was, planned = (plan.stages[plan.stage_of(step)][0].weights for plan in (old, new))
            if was != planned:
                raise ValueError(
                    f"this run cannot be extended: step {step + 1} was mixed by {dict(was)}; in the"
                    f" new stages it is mixed by {dict(planned)}"
                )
        was, planned = ([at for at in _borders(plan) if at < done] for plan in (old, new))
        if mixed and was != planned:
            raise ValueError(
                f"this run cannot be extended: in its {done} steps stages began after steps {was},"
                f" in the new ones they begin after {planned}; sources are mixed anew where a stage"
                " begins"
            )
        return {"at_step": done, "from_steps": old.total_steps, "to_steps": total}

    @contextlib.contextmanager
    def log(self, step: int) -> Iterator[RunLog]:
        """Open the log to append, without the lines beyond a step."""
        log = RunLog(self.path / _LOG if self.writes else Path(os.devnull), step)
        try:
            yield log
        finally:
            log.close()


def _make(path: Path) -> None:
    """Make a run's folder; ValueError, with what to do, if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(each for each in (path, *path.parents) if each.exists())
        raise ValueError(f"--out {path}: {file} is a file; a run needs a folder") from error
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise ValueError(f"--out {path} cannot be made: {why}; choose another --out") from error
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise ValueError(f"--out {path} is on a read-only file system; choose another --out")


def _holder(lock: int) -> str:
    """Return the id of the process that has a lock, which it writes as soon as it has it."""
    for _ in range(20):
        time.sleep(0.05)
        if holder := os.pread(lock, 20, 0).decode("ascii", "replace").strip():
            return holder
    return "?"


def _borders(plan: TrainRecipe) -> list[int]:
    """Return after which steps another stage begins."""
    return list(itertools.accumulate(steps for _, steps in plan.stages[:-1]))


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, str]:
    here, there = _flat(ours), _flat(theirs)
    return {
        name: f"{there.get(name)!r} there, {here.get(name)!r} here"
        for name in here | there
        if there.get(name) != here.get(name)
    }


def _listed(differences: dict[str, str]) -> str:
    return "; ".join(f"{name}: {words}" for name, words in differences.items())


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    """Return a recipe's values by section.key, those of tables by section.key[number].key."""
    if isinstance(values, dict) and values:
        inner = [(f"{name}.{key}" if name else key, value) for key, value in values.items()]
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        inner = [(f"{name}[{number}]", value) for number, value in enumerate(values)]
    else:
        return {name: values}
    flat = dict[str, Any]()
    for key, value in inner:
        flat |= _flat(value, key)
    return flat
