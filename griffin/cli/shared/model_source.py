"""Which model a verb works with: eleven options, one value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.kernels import say_if_not_compiled, say_if_not_stepped

if TYPE_CHECKING:
    from griffin.checkpoints import Checkpoint
    from griffin.llm import LLM

MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What the model options say; the fields are their names, None where one was not given.

    adapter: folders of LoRAs, each as FOLDER or NAME=FOLDER.
    """

    model: str
    tokenizer: str | None = None
    revision: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    screen: bool = False
    device: str | None = None
    adapter: tuple[str, ...] = ()
    state: str | None = None
    threads: int | None = None
    no_graphs: bool = False

    @property
    def adapters(self) -> dict[str, str]:
        """The folders of the adapters by their names; UsageError for a name that two have."""
        found: dict[str, str] = {}
        for given in self.adapter:
            name, equals, folder = given.partition("=")
            if not equals or "/" in name or Path(given).is_dir():
                name, folder = Path(given).expanduser().resolve().name, given
            if not name or not folder:
                raise click.UsageError(f"--adapter {given!r}: give FOLDER, or NAME=FOLDER")
            if name in found:
                raise click.UsageError(
                    f"two adapters are called {name!r}: {found[name]} and {folder}; give one"
                    " another name with --adapter NAME=FOLDER"
                )
            found[name] = folder
        return found

    def llm(self, say: bool = True, *, several: bool = False) -> LLM:
        """Load the model with its tokenizer, and give torch the CPU threads that were asked for.

        say: show that it is being read, and, where the kernels were not compiled, say so.
        several: each request says which adapter it is for, so there may be more than one.
        """
        import griffin
        from griffin.cli.shared.progress import WorkBar

        adapters = self.adapters
        if len(adapters) > 1 and not several:
            raise click.UsageError(
                f"one --adapter answers here, not {len(adapters)}; `griffin serve` has several"
            )
        if say:
            say_if_not_compiled()
        set_threads(self.threads)
        with WorkBar("loading" if self.quantize is None else "quantizing", shown=say) as advance:
            llm = griffin.load(
                self.model,
                tokenizer=self.tokenizer,
                revision=self.revision,
                dtype=self.dtype,
                device=self.device,
                quantize=self.quantize,
                screen=self.screen or None,
                adapter=adapters or None,
                state=self.state,
                graphs=not self.no_graphs,
                progress=advance,
            )
        if say:
            say_if_not_stepped(llm)
        return llm

    def checkpoint(self) -> Checkpoint:
        """Open the files of the model; its weights are not read yet."""
        from griffin import checkpoints

        return checkpoints.open(self.model, revision=self.revision)


def _talker() -> str:
    from griffin.checkpoints.model_names import talker

    return talker()


_model_option = partial(
    click.option, "--model", "-m", help="Folder, archive, Hub repository or bundled name."
)
# Of a verb that talks, which stands below `model_options`.
talker_option = _model_option(default=_talker, show_default="mini-it where it is bundled, or nano")
_OPTIONS = (
    _model_option(default="nano", show_default=True),
    click.option("--tokenizer", metavar="PATH", help="Tokenizer, if it is not beside the weights."),
    click.option("--revision", help="Branch, tag or commit of a Hub repository."),
    click.option("--dtype", help="bfloat16, float32, ... [default: as stored]."),
    click.option("--quantize", help="Round the weights to int8 or int4 while loading."),
    click.option(
        "--screen",
        is_flag=True,
        help="Read few bits of the head first, and whole only its best rows.",
    ),
    click.option("--device", help="cpu, cuda, cuda:1, ... [default: a GPU if there is one]."),
    click.option(
        "--adapter",
        metavar="[NAME=]FOLDER",
        multiple=True,
        help="A LoRA that reads and answers; of serve and batch several, named as models.",
    ),
    click.option(
        "--state", metavar="FILE", help="A tuned state, which stands before all that is read."
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="CPU threads [default: torch's choice]."
    ),
    click.option(
        "--no-graphs", is_flag=True, help="On a GPU call the model for each token: to debug."
    ),
)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the model options to a command, which takes them as one argument, `source`.

    One that the command has already, with a help of its own, is not added.
    """

    @functools.wraps(function)
    def command(*arguments: Any, **given: Any) -> Any:
        own = {field.name: given.pop(field.name) for field in fields(ModelSource)}
        return function(*arguments, source=ModelSource(**own), **given)

    own: list[click.Parameter] = getattr(command, "__click_params__", [])
    names = {name for parameter in own for name in parameter.opts}
    for option in reversed(_OPTIONS):
        command = option(command)
        if names & set(own[-1].opts):
            own.pop()
    return command


def set_threads(threads: int | None) -> None:
    """Give torch so many CPU threads; None leaves its choice. ValueError for more than a machine
    can be asked for: the system would end a program that starts them."""
    if threads is not None and threads > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS:,}, not {threads:,}")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
