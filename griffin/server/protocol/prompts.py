"""Texts of a request, each a string or ids."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import show
from griffin.server.protocol.bounds import TokenId, check_ids, check_most

Prompts = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
Prompt = str | tuple[int, ...]


def read_prompts(
    prompts: str | list[str | int | list[int]], limits: Limits, param: str, most: str
) -> tuple[Prompt, ...]:
    """Return a string, a list of ids, or a list of several of one kind, as a tuple of texts.

    param: the field it comes from. most: the limit of how many there may be.
    """
    if isinstance(prompts, str):
        return (prompts,)
    if isinstance(prompts[0], int):
        return (_ids(prompts, limits, param),)
    check_most(len(prompts), f"{param} has {len(prompts)} entries", limits, most, param)
    read: list[Prompt] = []
    for index, one in enumerate(prompts):
        place = f"{param}[{index}]"
        if isinstance(one, int) or isinstance(one, str) is not isinstance(prompts[0], str):
            raise ApiError(
                INVALID,
                f"{place} is {show(one)}, {param}[0] is {show(prompts[0])}; a {param} is a string,"
                " a list of ids, or a list of several of one kind",
                place,
            )
        read.append(one if isinstance(one, str) else _ids(one, limits, place))
    return tuple(read)


def _ids(ids: list[Any], limits: Limits, param: str) -> tuple[int, ...]:
    if not ids:
        raise ApiError(INVALID, f"{param} is an empty list of ids; give at least one", param)
    check_most(len(ids), f"{param} has {len(ids)} ids", limits, "max_prompt_tokens", param)
    for index, id in enumerate(ids):
        if not isinstance(id, int):
            raise ApiError(
                INVALID,
                f"{param}[{index}] is {show(id)}; ids are whole numbers",
                f"{param}[{index}]",
            )
    check_ids(ids, limits, param)
    return tuple(ids)
