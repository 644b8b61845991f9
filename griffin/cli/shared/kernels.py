"""What a verb says where kernels are not there or do not serve: how slow that is, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from griffin.llm import LLM


def say_if_not_compiled() -> None:
    """Print a dim line on standard error where this installation has no kernels."""
    from griffin.ops import native
    from griffin.ops.installation import NEEDS, install_again

    if not native.built():
        line = f"no compiled kernels, so it runs several times slower; {NEEDS}: {install_again()}"
        click.secho(f"  {line}", dim=True, err=True)


def say_if_not_stepped(llm: LLM) -> None:
    """Print a dim line on standard error where a model on a GPU is not stepped by graphs."""
    from griffin.engine.runners import why_no_graphs

    model = llm.model
    if model.device.type == "cuda" and (why := why_no_graphs(model)) is not None:
        line = f"torch's own operations decode on {model.device}, several times slower: {why}"
        click.secho(f"  {line}", dim=True, err=True)
