"""lm-eval's own evaluation, asked for our model, a task or a group of them at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import datasets
import evaluate as metrics
import lm_eval
import numpy
from datasets.exceptions import DatasetsError
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from griffin.evaluate.lm_eval import GriffinLM
from griffin.evaluate.long_tasks import FOLDER
from griffin.evaluate.written_code import CodeEval

_NAN = "NaN"
UNSAFE = "it runs what the model writes: allow that with --run-code"


class NotHere(ValueError):
    """A task cannot be measured here: what it needs is missing, or was not allowed."""


class Harness:
    """lm-eval with a model.

    shots: examples before each question where a task does not say how many; None: none, or as the
           task's own file says. limit: so many questions of each task, the first; None is all.
    chat:  ask as turns of a conversation. seed: of what the harness draws. run_code: run what the
           model writes, for tasks that measure it so. metadata: what tasks that make their texts
           are told, such as {"max_seq_lengths": [4096]}; the tokenizer they are told anyway.
    """

    def __init__(
        self,
        lm: GriffinLM,
        *,
        limit: int | None = None,
        chat: bool = False,
        seed: int = 1234,
        run_code: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.lm, self.limit, self.chat, self.seed = lm, limit, chat, seed
        self.run_code, self.metadata = run_code, metadata or {}

    @cached_property
    def manager(self) -> TaskManager:
        """Knows the names of all tasks; made when it is first asked for: some seconds."""
        path = self.lm.llm.tokenizer.path
        told = {"tokenizer": str(path if path.is_dir() else path.parent), **self.metadata}
        return TaskManager(include_path=str(FOLDER), metadata=told)

    def measure(
        self,
        task: str,
        shots: int | None = None,
        more: Sequence[str] = (),
        lm: GriffinLM | None = None,
    ) -> dict[str, Any]:
        """Return what `lm_eval.simple_evaluate` finds for a task, a group or a task's file.

        shots: examples before each question; as the task says if omitted. more: metrics to take
        besides the task's own. lm: asked instead of the model: only to see what it is asked, and
        no metric is taken.
        Raises NotHere, and ValueError for a task that there is not.
        """
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        names = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
        seeds: dict[str, Any] = dict.fromkeys(names, self.seed)
        try:
            with mended(self.run_code):
                ask: Any = lm_eval.simple_evaluate  # a decorator hides its names
                return ask(
                    model=lm or self.lm,
                    tasks=[self._asked(task, more)],
                    num_fewshot=shots,
                    limit=self.limit,
                    apply_chat_template=self.chat,
                    log_samples=lm is not None,
                    predict_only=lm is not None,
                    task_manager=self.manager,
                    confirm_run_unsafe_code=self.run_code,
                    **seeds,
                )
        except ImportError as error:
            raise NotHere(f"{task} needs what is not installed: {_line(error)}") from error
        except KeyError as error:  # the only way to know: it knows groups, tags and files
            if "is not a registered task" not in str(error):
                raise
            raise ValueError(
                f"lm-eval {lm_eval.__version__} has no task {task!r}, and it is no YAML file"
            ) from None
        except ValueError as error:
            if "marked as unsafe" in str(error):
                raise NotHere(UNSAFE) from None
            raise

    def _asked(self, task: str, more: Sequence[str]) -> str | ConfigurableTask:
        """Return what the harness is asked for: a name, or that task with more metrics."""
        if not more:
            return task
        config = self.manager.load([task])["tasks"][task].config.to_dict(keep_callable=True)
        added = [{"metric": name.partition(",")[0]} for name in more]
        return ConfigurableTask(config={**config, "metric_list": [*config["metric_list"], *added]})


@contextmanager
def mended(run_code: bool) -> Iterator[None]:
    """Let the harness's tasks find what they expect, for as long as this is entered.

    A data set that cannot be had is a NotHere that names it. "code_eval" is ours
    (`written_code.CodeEval`), or not allowed. numpy has NaN under the name it had before 2.0, for
    tasks of BBQ. Nothing is asked of `git`, `pip` and the like about this machine.
    """
    load, metric = datasets.load_dataset, metrics.load
    commit, machine = evaluator.get_git_commit_hash, evaluator.add_env_info

    def load_dataset(path: str, name: str | None = None, *rest: Any, **more: Any) -> Any:
        try:
            return load(path, name, *rest, **more)
        except (OSError, ValueError, DatasetsError) as error:
            where = path if name is None else f"{path} ({name})"
            raise NotHere(f"the data set {where} cannot be had: {_line(error)}") from error

    def load_metric(path: str, *rest: Any, **more: Any) -> Any:
        if path != "code_eval":
            return metric(path, *rest, **more)
        if not run_code:
            raise NotHere(UNSAFE)
        return CodeEval()

    lacks_nan = not hasattr(numpy, _NAN)
    datasets.load_dataset, metrics.load = load_dataset, load_metric
    evaluator.get_git_commit_hash, evaluator.add_env_info = lambda: "", lambda _: None
    if lacks_nan:
        setattr(numpy, _NAN, numpy.nan)
    try:
        yield
    finally:
        datasets.load_dataset, metrics.load = load, metric
        evaluator.get_git_commit_hash, evaluator.add_env_info = commit, machine
        if lacks_nan:
            delattr(numpy, _NAN)


def _line(error: BaseException) -> str:
    """Return what an error says, as far as a line has room."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
