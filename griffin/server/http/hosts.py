"""From where one may ask: the Host and Origin headers, against pages that ask behind your back."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from griffin.server.errors import FORBIDDEN, ApiError

_LOCAL = ("localhost", "127.0.0.1", "::1")
_READS = ("GET", "HEAD")


def is_loopback(host: str) -> bool:
    """Return whether a server bound to this address is reached from its own machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Hosts:
    """Which names the server goes by, and which foreign pages may speak to it.

    names:   allowed in Host, without a port. None allows any: for a server that asks for keys and
             does not know its own name.
    origins: web pages allowed besides the server's own, such as "https://chat.example.org"; they
             get CORS headers.
    """

    def __init__(self, names: Iterable[str] | None = _LOCAL, origins: Iterable[str] = ()) -> None:
        self.names = None if names is None else frozenset(name.lower() for name in names)
        self.origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        for origin in self.origins:
            if not origin.startswith(("http://", "https://")):
                raise ValueError(f"the origin {origin!r} is none; write https://name, no wildcards")

    @classmethod
    def bound_to(cls, host: str, names: Iterable[str] = (), origins: Iterable[str] = ()) -> Hosts:
        """Return the rule for an address: on loopback local names and `names`, else `names`."""
        names = tuple(names)
        if is_loopback(host):
            return cls((*_LOCAL, *names), origins)
        return cls(names or None, origins)

    def check(self, method: str, scheme: str, headers: Mapping[str, str]) -> str | None:
        """Return the foreign origin that may ask, None for the usual case, else ApiError (403).

        A page that points its own name at this machine (DNS rebinding) is told by Host; a page that
        sends requests from elsewhere by Origin, which browsers put on everything that is not a
        plain read.
        """
        host = headers.get("host", "").lower()
        if self.names is not None and _name(host) not in self.names:
            raise ApiError(
                FORBIDDEN,
                f"this server does not go by the name {host[:100]!r}; use localhost, or allow the"
                " name with --allow-host",
            )
        origin = headers.get("origin")
        if origin is None or origin.lower() == f"{scheme}://{host}":
            return None
        if origin.lower() in self.origins:
            return origin
        # Behind a proxy that ends TLS the page is https and we are not; the name must be ours all
        # the same.
        if scheme == "http" and origin.lower() == f"https://{host}":
            return None
        if method in _READS:
            return None  # it may send this, but no header of ours lets it read the answer
        raise ApiError(
            FORBIDDEN,
            f"pages of {origin[:100]!r} may not use this server; allow them with --allow-origin",
        )


def cors(origin: str) -> dict[str, str]:
    """Return the headers that let an allowed page read an answer: no wildcard, no cookies."""
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": (
            "x-request-id, x-griffin-state, x-griffin-ignored, retry-after"
        ),
        "vary": "origin",
    }


def preflight(origin: str) -> dict[str, str]:
    """Return the headers that answer an allowed page's question whether it may ask."""
    return cors(origin) | {
        "access-control-allow-methods": "GET, POST, PATCH, DELETE",
        "access-control-allow-headers": "authorization, content-type, x-griffin-session,"
        " x-session-id, x-request-id",
        "access-control-max-age": "600",
    }


def _name(host: str) -> str:
    """Return a Host header without its port: "[::1]:8000" -> "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
