"""The end of a tuned run: what it learned as files, beside what it was worth before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from griffin.adapters import Adapter, BaseMark, parameter_name, save_adapter, save_tuned_state
from griffin.adapters.adapter import expected
from griffin.model import Griffin, TunedState
from griffin.train.export import write_model
from griffin.train.files import write_json
from griffin.train.run import TrainingRun
from griffin.train.scale.sharding import whole_weights
from griffin.tune.answers import answers, held_out_prompts
from griffin.tune.learner import ADAPTER, lora_config
from griffin.tune.state import StateLearner

_BEFORE, _BASE = "before.json", "base.json"


class TunedRun(TrainingRun):
    """A run of a recipe with [tune]. model: what is tuned, its adapter in it. mark: of the base,
    where an adapter is trained."""

    model: Griffin
    mark: BaseMark | None = None

    def _open(self, extend: bool) -> None:
        super()._open(extend)
        if self.recipe.tune is not None and self.recipe.tune.trains == "lora":
            self.mark = self._marked()

    def _marked(self) -> BaseMark:
        """Return the mark of the base, and keep it in the folder of a run that begins.

        Raises ValueError where a run that goes on finds another base than the one that it had.
        """
        mark = BaseMark.of(self.recipe.open_base(), self.recipe.base)
        known = read_mark(self.out) if self.progress.step else None
        if known is not None and (differing := known.unlike(mark)):
            raise ValueError(
                f"{self.out} began on other weights than those that {self.recipe.base} names now:"
                f" {differing} differ; put the old ones back, or choose another --out"
            )
        if known is None and self.ranks.is_writer:
            write_json(self.out / _BASE, mark.to_dict())
        return known or mark


def measure_before(run: TunedRun) -> None:
    """Keep, in a run that has done no step yet, what the model is worth and answers before it."""
    path = run.out / _BEFORE
    if run.progress.step:
        return
    run.reporter.say("measuring the model as it is")
    found = _measured(run)
    if run.ranks.is_writer:
        write_json(path, found)


def export(run: TunedRun) -> dict[str, Any] | None:
    """Write what a run has learned into its folder, and results.json; return the results.

    An adapter goes to adapter/, in PEFT's files; a model of which all weights were trained to
    model/, in bfloat16; a state to tuned.state. The writer does, and the other ranks, which give
    their parts, return None.
    """
    tune = run.recipe.tune
    assert tune is not None
    after = _measured(run)
    place = write_learned(run)
    if not run.ranks.is_writer:
        return None
    trained = [each for each in run.learner.parameters() if each.requires_grad]
    results = {
        "method": tune.method,
        "base": run.recipe.base,
        tune.trains if tune.trains != "lora" else "adapter": str(place),
        "trained_parameters": sum(each.numel() for each in trained),
        "bytes": sum(file.stat().st_size for file in _files(place)),
        "before": _read(run.out / _BEFORE),
        "after": after,
        "training": run.account(),
    }
    write_json(run.out / "results.json", results)
    return results


def write_learned(run: TunedRun) -> Path:
    """Write what is trained into the run's folder; return where it is. All ranks must call this."""
    tune = run.recipe.tune
    assert tune is not None
    if tune.trains == "full":
        return write_model(run, run.model, run.out / "model")
    if tune.trains == "state":
        tuned, path = tuned_state(run), run.out / "tuned.state"
        if tuned is not None and run.ranks.is_writer:
            save_tuned_state(tuned, path)
        return path
    return _write_adapter(run)


def tuned_adapter(run: TunedRun) -> Adapter:
    """Return the adapter of a run as it stands, with whole tensors; all ranks must call this."""
    assert run.recipe.tune is not None
    config = lora_config(run.recipe.tune)
    own = dict(whole_weights(run.learner, run.ranks))
    tensors = {key: own[parameter_name(key)] for key in expected(config, run.recipe.model)}
    return Adapter(ADAPTER, config, tensors, run.mark)


def read_mark(run: Path) -> BaseMark | None:
    """Return the mark of the base that a run's adapter is for; None where none was kept."""
    found = _read(run / _BASE)
    return None if found is None else BaseMark.parse(found, str(run / _BASE))


def tuned_state(run: TunedRun) -> TunedState | None:
    """Return the state that a run learns as it stands, in the model's type; None where it learns
    something else. All ranks must call this."""
    if not isinstance(run.learner, StateLearner):
        return None
    own = dict(whole_weights(run.learner, run.ranks))
    return run.learner.tuned(own).to(run.model.dtype)


def _write_adapter(run: TunedRun) -> Path:
    adapter, folder = tuned_adapter(run), run.out / "adapter"
    if run.ranks.is_writer:
        save_adapter(adapter, folder, run.recipe.base)
    return folder


def _measured(run: TunedRun) -> dict[str, Any]:
    found: dict[str, Any] = dict(run.validate().entries)
    if run.ranks.mesh is None:
        prompts = held_out_prompts(run.data)
        found["answers"] = answers(
            run.model, run.data, prompts, tuned=tuned_state(run), check=run.stop.check
        )
    return found


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [each for each in place.iterdir() if each.is_file()]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
