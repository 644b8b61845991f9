"""Names of sessions and namespaces, never part of a path, and other words of the index."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from griffin.sessions.errors import InvalidName

UNFINISHED = "~"  # begins the name of a session that is in no list yet; no other name has it
DEEPEST = 100  # levels of what is kept as JSON
_LAST_MOMENT = 253_402_300_800  # the end of the year 9999
_UNFINISHED = re.compile(r"~[0-9a-f]{16}")
_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str) -> str:
    """Return a name: 1 to 128 of A-Z a-z 0-9 . _ -, a letter or digit first; or InvalidName."""
    if not isinstance(name, str) or not _ALLOWED.fullmatch(name):
        raise InvalidName(
            f"{name!r:.200} cannot name a session; a name has 1 to 128 of the characters A-Z a-z"
            " 0-9 . _ - and begins with a letter or a digit"
        )
    return name


def check_kept(name: str) -> str:
    """Return a name of `check_name` or `unfinished_name`; InvalidName for others."""
    return name if isinstance(name, str) and _UNFINISHED.fullmatch(name) else check_name(name)


def check_namespace(namespace: str) -> str:
    """Return the namespace, a name or "" (that of the program's user); else InvalidName."""
    return namespace if namespace == "" else check_name(namespace)


def new_name() -> str:
    """Return a name for who gave none."""
    return f"session-{secrets.token_hex(4)}"


def unfinished_name() -> str:
    """Return a name for a session that is in no list until `Session.update` gives it another.

    If the process is killed before that, the store's next opening removes it.
    """
    return UNFINISHED + secrets.token_hex(8)


def check_text(text: str, what: str) -> str:
    """Return a text, or raise ValueError if it is none or cannot be written as UTF-8."""
    if not isinstance(text, str):
        raise ValueError(f"{what} is {text!r:.80}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} cannot be written as UTF-8: {error.reason}") from None
    return text


def is_moment(value: object) -> bool:
    """Return whether this is a time in seconds since 1970 that calendars know."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 <= value < _LAST_MOMENT  # NaN is not


def plain_json(values: Mapping[str, Any] | None, what: str) -> str:
    """Return plain values (strings, numbers, lists, ... by name) as JSON; ValueError for others."""
    try:
        text = json.dumps(dict(values or {}))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} must be plain values, such as JSON can hold: {error}") from None
    if too_deep(values):
        raise ValueError(f"{what} lie deeper than {DEEPEST} lists in one another; flatten them")
    return text


def too_deep(value: object, levels: int = DEEPEST) -> bool:
    """Return whether lists and objects lie in one another beyond so many levels."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    return levels == 0 or any(too_deep(each, levels - 1) for each in value)
