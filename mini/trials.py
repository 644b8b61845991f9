"""What wordings and sources are worth: short pre-trainings, each with one thing changed."""

from __future__ import annotations

import math
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.proofs.runs import Runs
from griffin.loading import load
from mini.chain import write_recipes
from mini.corpus import build
from mini.exam import examine, tell
from mini.seeds import read_results, shortened, train_short

FOLDER = "trials"  # in that of the training
TEXTS = ("python", "python-docs", "wordnet")
SKILLS = ("counting", "dates", "expressions", "sorting", "spelling", "sums")
WORDS = ("kinds", "opposites", "synonyms", "yes-or-no")
_SMALL = ("jargon", "devil", "toybox")


@dataclass(frozen=True)
class Trial:
    """What differs from the recipe.

    wordings: of each question at most, 0: all. without: sources that are not read. questions: times
    the share that questions have in the first stage.
    """

    wordings: int = 0
    without: tuple[str, ...] = ()
    questions: float = 1.0
    seed: int = 1


TRIALS = {
    "as it is": Trial(),
    "another seed": Trial(seed=2),
    "one wording": Trial(wordings=1),
    "two wordings": Trial(wordings=2),
    "no questions at first": Trial(questions=0.0),
    "half as many at first": Trial(questions=0.5),
    "twice as many at first": Trial(questions=2.0),
    **{f"without {name}": Trial(without=(name,)) for name in TEXTS},
    "without the small ones": Trial(without=_SMALL),
}


def train(
    corpus: Path,
    archives: Path,
    out: Path,
    threads: int,
    say: Callable[[str], None],
    *,
    tokens: int,
    most: int,
    rehearsal: bool = False,
) -> dict[str, Any]:
    """Train and examine each of TRIALS; return results.json, which is in a folder of `out` then.

    out: of `python -m mini train`, whose recipe is changed. archives: where packages are, for
    questions with fewer wordings. tokens: of each; most: questions of an examination.
    What was done already is not done again. Raises ValueError where it was begun otherwise.
    """
    write_recipes(corpus.resolve(), out.resolve(), rehearsal=rehearsal)
    text = (out / "recipes" / "pretrain.toml").read_text(encoding="utf-8")
    place = out / FOLDER
    runs = Runs(place, tokens=tokens, most=most)
    first = place / next(iter(TRIALS)).replace(" ", "-")
    for name, trial in TRIALS.items():
        folder = place / name.replace(" ", "-")

        def make(name: str = name, trial: Trial = trial, folder: Path = folder) -> dict[str, Any]:
            say(f"{name} ...")
            own = text
            if trial.wordings:
                fewer = place / f"corpus-{trial.wordings}"
                if not fewer.exists():
                    build(fewer, archives, say, wordings=trial.wordings)
                own = text.replace(f'"{corpus.resolve().as_posix()}/', f'"{fewer.resolve()}/')
            recipe = changed(tomllib.loads(own), trial, tokens)
            prepared = None if trial.wordings or folder == first else first
            train_short(recipe, prepared, folder, threads)
            model, exams = load(folder / "model"), corpus / "exams"
            grades = examine(model, exams, None, lambda grade: say(tell(grade)), most=most)
            bits = read_results(folder)["sources"]
            shutil.rmtree(folder / "checkpoints")
            return {"bits": bits, "grades": {each.exam: each.right for each in grades}}

        runs.get({"trial": name}, make)
    return runs.found


def changed(recipe: Mapping[str, Any], trial: Trial, tokens: int) -> dict[str, Any]:
    """Return a pre-training's recipe with a trial's change, and a budget of so many tokens."""
    values = shortened(recipe, tokens, trial.seed)
    sources, stages = values["data"]["source"], values["train"]["stage"]
    asked = {of["name"] for of in sources if Path(of["path"]).name == "questions"}
    stages[0]["weights"] = {
        of["name"]: of["weight"] * (trial.questions if of["name"] in asked else 1.0)
        for of in sources
    }
    for stage in stages:
        weights = stage["weights"].items()
        stage["weights"] = {n: each for n, each in weights if each and n not in trial.without}
    return values


def table(runs: Sequence[Mapping[str, Any]], questions: int) -> str:
    """Return, by trial, held-out bits a byte of texts and shares of right answers."""
    head = [*(f"{name}, bits a byte" for name in TEXTS), "skills", "words"]
    lines = [f"|  | {' | '.join(head)} |", "| --- " * (len(head) + 1) + "|"]
    for run in runs:
        bits = (run["bits"][name] for name in TEXTS)
        cells = ["" if each is None else f"{each:.3f}" for each in bits]
        for exams in (SKILLS, WORDS):
            shares = [right for name, right in run["grades"].items() if name in exams]
            error = math.sqrt(sum(p * (1 - p) / questions for p in shares)) / max(1, len(shares))
            cells.append(f"{sum(shares) / max(1, len(shares)):.1%} ± {error:.1%}")
        lines.append(f"| {run['trial']} | {' | '.join(cells)} |")
    return "\n".join(lines)
