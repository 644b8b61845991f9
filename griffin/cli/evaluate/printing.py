"""What the ways of `griffin evaluate` print alike: a bar that counts tokens, and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar that moves by the tokens it is told, of a total."""
    from griffin.checkpoints import Progress
    from griffin.cli.shared.progress import WorkBar

    done = 0
    with WorkBar(what, in_bytes=False) as step:

        def advance(tokens: int) -> None:
            nonlocal done
            done += tokens
            step(Progress(min(done, total), total, f"{done:,} tokens"))

        yield advance


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output, its first column on the left, the others on the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(head[0], overflow="fold")
    for name in head[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table, width=None if console.is_terminal else 1000)
