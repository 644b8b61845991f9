"""The options that say how tokens are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Drafts(click.ParamType):
    """auto, off, or how many: a value of SamplingParams.draft, "auto" as it stands."""

    name = "auto|off|N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        if value in ("auto", "off"):
            return "auto" if value == "auto" else 0
        if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
            from griffin.sampling.params import MOST_DRAFTS

            if int(value) <= MOST_DRAFTS:
                return int(value)
            self.fail(f"{value} drafts are too many; at most {MOST_DRAFTS}", param, ctx)
        self.fail(f"{value!r} is not auto, off or a number of drafts such as 7", param, ctx)


_OPTIONS = (
    click.option("--max-tokens", "-n", type=int, help="The most tokens to generate."),
    click.option("--temperature", type=float, help="0 takes the most probable token."),
    click.option("--top-k", type=int, help="Keep the k most probable tokens; 0 keeps all."),
    click.option(
        "--top-p", type=float, help="Keep the fewest tokens whose probabilities add up to p."
    ),
    click.option(
        "--min-p",
        type=float,
        help="Keep tokens at least this fraction as probable as the best one.",
    ),
    click.option(
        "--repetition-penalty",
        type=float,
        help="Above 1: tokens already read or generated become less likely.",
    ),
    click.option(
        "--presence-penalty",
        type=float,
        help="Subtracted once from the logit of each token already generated.",
    ),
    click.option(
        "--frequency-penalty",
        type=float,
        help="Subtracted for each time the token was generated.",
    ),
    click.option(
        "--logit-bias",
        multiple=True,
        metavar="ID=BIAS",
        help="Add BIAS to a token's logit. Repeatable.",
    ),
    click.option(
        "--allowed-id",
        "allowed_ids",
        type=int,
        multiple=True,
        help="Choose only this token, or the others so named. Repeatable.",
    ),
    click.option("--seed", type=int, help="The same seed gives the same answer."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. Repeatable."),
    click.option(
        "--stop-id", "stop_ids", type=int, multiple=True, help="End at this token. Repeatable."
    ),
    click.option("--min-tokens", type=int, help="Neither end nor stop before so many tokens."),
    click.option(
        "--ignore-eos",
        is_flag=True,
        default=None,
        help="Go on where the model would end, up to --max-tokens.",
    ),
    click.option(
        "--draft",
        type=Drafts(),
        help="Tokens guessed and read in one call; no answer changes. auto: where it saves time.",
    ),
)


def sampling_options(function: F) -> F:
    """Add the fields of SamplingParams to a command; take them with `sampling_from`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def sampling_from(options: dict[str, Any]) -> dict[str, Any]:
    """Return the sampling fields that were given on the command line.

    ValueError for a value that is none, before a model is loaded.
    """
    from griffin.sampling import SamplingParams

    fields = {name: value for name, value in options.items() if value is not None and value != ()}
    if fields.get("draft") == "auto":
        fields["draft"] = None
    if "logit_bias" in fields:
        fields["logit_bias"] = dict(_bias(entry) for entry in fields["logit_bias"])
    SamplingParams(**fields)
    return fields


def _bias(entry: str) -> tuple[int, float]:
    token, _, bias = entry.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise click.BadParameter(
            f"{entry!r} is not ID=BIAS, such as 107=-100", param_hint="--logit-bias"
        ) from None
