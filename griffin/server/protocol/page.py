"""Lists that are given in pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from griffin.server.errors import INVALID, ApiError
from griffin.server.protocol.body import show

MAX_PAGE = 1000


class Listed(Protocol):
    """What a list may hold."""

    id: str


L = TypeVar("L", bound=Listed)


@dataclass(frozen=True)
class Page:
    """Which part of a list to give: `limit` entries after the one named `after`, newest first if
    `newest`."""

    limit: int = 20
    after: str | None = None
    newest: bool = True


def parse_page(query: Mapping[str, str]) -> Page:
    """Read limit, after and order from a query; ApiError for values that are none."""
    limit = query.get("limit", "20")
    if not (
        limit.isascii() and limit.isdigit() and len(limit) <= 6 and 1 <= int(limit) <= MAX_PAGE
    ):
        raise ApiError(
            INVALID, f"limit is {show(limit)}; give a number from 1 to {MAX_PAGE}", "limit"
        )
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(INVALID, f"order is {show(order)}; allowed are asc, desc", "order")
    after = query.get("after")
    if after is not None and not 1 <= len(after) <= 128:
        raise ApiError(INVALID, f"after is {show(after)}; give an id of the list", "after")
    return Page(int(limit), after, order == "desc")


def page_of(objects: Sequence[L], page: Page, when: Callable[[L], int]) -> tuple[list[L], bool]:
    """Return a page of a list and whether there is more; ApiError if `after` is not in it."""
    ordered = sorted(objects, key=lambda one: (when(one), one.id), reverse=page.newest)
    if page.after is not None:
        ids = [one.id for one in ordered]
        if page.after not in ids:
            raise ApiError(INVALID, f"after is {page.after!r}, which is not in the list", "after")
        ordered = ordered[ids.index(page.after) + 1 :]
    return ordered[: page.limit], len(ordered) > page.limit


def ends(data: Sequence[Listed]) -> tuple[str | None, str | None]:
    """Return the first and the last id of a page."""
    return (data[0].id, data[-1].id) if data else (None, None)
