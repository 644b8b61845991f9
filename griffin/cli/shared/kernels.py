"""What a verb says where the kernels were not compiled: how slow that is, and what mends it."""

from __future__ import annotations

import click


def say_if_not_compiled() -> None:
    """Print a dim line on standard error where this installation has no kernels."""
    from griffin.ops import native
    from griffin.ops.installation import NEEDS, install_again

    if not native.built():
        line = f"no compiled kernels, so it runs several times slower; {NEEDS}: {install_again()}"
        click.secho(f"  {line}", dim=True, err=True)
