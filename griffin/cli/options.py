"""Options that several verbs share: which model, and how it chooses tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from griffin.llm import LLM

F = TypeVar("F", bound=Callable[..., Any])

_MODEL = (
    click.option(
        "--model",
        default="nano",
        show_default=True,
        help="Folder, archive, Hub repository or bundled name.",
    ),
    click.option(
        "--tokenizer", metavar="PATH", help="Tokenizer, where it does not lie beside the weights."
    ),
    click.option("--revision", help="Branch, tag or commit of a Hub repository."),
    click.option("--dtype", help="bfloat16, float32, ... [default: as stored]."),
    click.option("--quantize", help="Round the weights to int8 or int4 while loading."),
    click.option("--device", help="cpu, cuda, ... [default: a GPU if there is one]."),
    click.option(
        "--threads", type=click.IntRange(1), help="CPU threads [default: torch's choice]."
    ),
)

_SAMPLING = (
    click.option("--max-tokens", type=int, help="The most tokens to generate."),
    click.option("--temperature", type=float, help="0 takes the most probable token."),
    click.option("--top-k", type=int, help="Keep the k most probable tokens; 0 keeps all."),
    click.option("--top-p", type=float, help="Keep the fewest tokens whose mass reaches p."),
    click.option("--min-p", type=float, help="Keep tokens this fraction as probable as the best."),
    click.option(
        "--repetition-penalty", type=float, help="Above 1: less of what was said or read."
    ),
    click.option("--presence-penalty", type=float, help="Taken from each token already generated."),
    click.option("--frequency-penalty", type=float, help="Taken each time a token was generated."),
    click.option(
        "--logit-bias",
        multiple=True,
        metavar="ID=BIAS",
        help="Add BIAS to a token's logit. Repeatable.",
    ),
    click.option("--seed", type=int, help="The same seed gives the same text."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. Repeatable."),
    click.option(
        "--stop-id", "stop_ids", type=int, multiple=True, help="End at this token. Repeatable."
    ),
)


def model_options(function: F) -> F:
    """Add --model, --tokenizer, --revision, --dtype, --quantize, --device and --threads to a
    command."""
    return _add(_MODEL, function)


def sampling_options(function: F) -> F:
    """Add the fields of SamplingParams to a command; take them with `sampling_from`."""
    return _add(_SAMPLING, function)


def sampling_from(options: dict[str, Any]) -> dict[str, Any]:
    """Return the sampling fields that were given on the command line."""
    fields = {name: value for name, value in options.items() if value is not None and value != ()}
    if "logit_bias" in fields:
        fields["logit_bias"] = dict(_bias(entry) for entry in fields["logit_bias"])
    return fields


def open_llm(
    model: str,
    tokenizer: str | None,
    revision: str | None,
    dtype: str | None,
    quantize: str | None,
    device: str | None,
    threads: int | None,
) -> LLM:
    """Load what the model options name."""
    import griffin

    set_threads(threads)
    return griffin.load(
        model, tokenizer=tokenizer, revision=revision, dtype=dtype, device=device, quantize=quantize
    )


def set_threads(threads: int | None) -> None:
    """Give torch so many CPU threads; None leaves its choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _bias(entry: str) -> tuple[int, float]:
    token, _, bias = entry.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise click.BadParameter(
            f"{entry!r} is not ID=BIAS, such as 107=-100", param_hint="--logit-bias"
        ) from None


def _add(options: tuple[Callable[[Any], Any], ...], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function
