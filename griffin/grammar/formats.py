"""Formats of strings as regular expressions: what is sayable under one is valid, nothing else.

Narrower than the standards where those are wider than their readers: years from 0001, upper case
`T` and `Z`, fractions of at most nine digits, no leap seconds, names of bounded length.
"""

from __future__ import annotations

from typing import Any

_LEAP = (
    r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])"  # every fourth year, the hundreds aside
    r"|(?:0[48]|[2468][048]|[13579][26])00)"
)
_YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"  # all but 0000
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:Z|[+-]{_CLOCK})"

_SPAN = r"[0-9]{1,9}"
_DURATION = (
    rf"P(?:{_SPAN}W|(?:{_SPAN}Y(?:{_SPAN}M(?:{_SPAN}D)?)?|{_SPAN}M(?:{_SPAN}D)?|{_SPAN}D)"
    rf"(?:T(?:{_SPAN}H(?:{_SPAN}M(?:{_SPAN}S)?)?|{_SPAN}M(?:{_SPAN}S)?|{_SPAN}S))?"
    rf"|T(?:{_SPAN}H(?:{_SPAN}M(?:{_SPAN}S)?)?|{_SPAN}M(?:{_SPAN}S)?|{_SPAN}S))"
)

_LABEL = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_HEX = "[0-9a-fA-F]"
_H16 = f"{_HEX}{{1,4}}"
_IPV6 = (
    rf"(?:(?:{_H16}:){{7}}{_H16}"
    rf"|(?:{_H16}:){{1,7}}:"
    + "".join(rf"|(?:{_H16}:){{1,{7 - n}}}(?::{_H16}){{1,{n}}}" for n in range(1, 7))
    + rf"|:(?:(?::{_H16}){{1,7}}|:))"
)
_UUID = "-".join(f"{_HEX}{{{n}}}" for n in (8, 4, 4, 4, 12))
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_EMAIL = rf"{_ATOM}{{1,20}}(?:\.{_ATOM}{{1,20}}){{0,2}}@{_LABEL}(?:\.{_LABEL}){{1,3}}"
_PATH_CHARACTER = r"[A-Za-z0-9._~!$&'()*+,;=:@-]"
_SCHEME = "[A-Za-z][A-Za-z0-9+.-]{0,31}"
_URI = (
    rf"{_SCHEME}:(?://{_HOST}(?::[1-9][0-9]{{0,3}})?|{_PATH_CHARACTER}+)"
    rf"(?:/{_PATH_CHARACTER}*)*"
    rf"(?:\?(?:{_PATH_CHARACTER}|[/?])*)?(?:\#(?:{_PATH_CHARACTER}|[/?])*)?"
)

FORMATS: dict[str, str] = {
    "date": _DATE,
    "date-time": f"{_DATE}T{_TIME}",
    "time": _TIME,
    "duration": _DURATION,
    "email": _EMAIL,
    "hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uuid": _UUID,
    "uri": _URI,
}


def pattern(name: Any) -> str | None:
    """Return what a string of a format matches, as `pattern` says it; None for one that no
    grammar holds."""
    found = FORMATS.get(name) if isinstance(name, str) else None
    return None if found is None else f"^(?:{found})$"
