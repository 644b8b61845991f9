"""From where one may ask: the Host and Origin headers, against pages that ask behind your back."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from griffin.server.errors import FORBIDDEN, INVALID, ApiError

_ALL = ("", "0.0.0.0", "::")  # every address of this machine
_LOCAL = ("localhost", "127.0.0.1", "::1")
_READS = ("GET", "HEAD")
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(
    rf"(?:\[(?P<six>[0-9a-f:.]{{2,45}})\]|(?P<name>{_LABEL}(?:\.{_LABEL})*\.?))"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,63}://")
_HEADERS = (
    *("authorization", "content-type", "x-griffin-session", "x-session-id", "x-request-id"),
)
_MOST_HEADERS = 64  # of a preflight
_TOKEN = re.compile(r"[a-z0-9_-]{1,64}")
_LAST_PORT, _LONGEST = 65_535, 262  # the longest name and port


def is_loopback(host: str) -> bool:
    """Return whether a server bound to this address is reached from its own machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name_of(host: str) -> str:
    """Return the name or address in a Host header, in the one way it is written here.

    Small letters, no port, no brackets, no dot at the end. ValueError for anything that is not a
    name or an address and a port, whole.
    """
    found = _HOST.fullmatch(host.lower())
    if found is None or int(found["port"] or 0) > _LAST_PORT or len(host) > _LONGEST:
        raise ValueError(f"{host[:100]!r} is no name of a host")
    if found["six"] is not None:
        return str(ipaddress.IPv6Address(found["six"]))  # its error is a ValueError
    name = found["name"]
    if name.rpartition(".")[2].isdigit():  # so browsers read it, too
        return str(ipaddress.IPv4Address(name))
    return name.removesuffix(".")


def is_address(name: str) -> bool:
    """Return whether a name is an address: no page can have it point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Hosts:
    """Which names the server goes by, and which foreign pages may speak to it.

    names:   allowed in Host, without a port. None allows any: for a server that asks for keys and
             does not know its own name.
    origins: web pages allowed besides the server's own, such as "https://chat.example.org", or what
             is none and says where it comes from in another scheme: "chrome-extension://ID",
             "app://obsidian.md", "tauri://localhost". They get CORS headers.
    """

    def __init__(self, names: Iterable[str] | None = _LOCAL, origins: Iterable[str] = ()) -> None:
        self.names = None if names is None else frozenset(map(_own_name, names))
        self.origins = frozenset(map(_own_origin, origins))

    @classmethod
    def bound_to(cls, host: str, names: Iterable[str] = (), origins: Iterable[str] = ()) -> Hosts:
        """Return the rule for an address that is bound: it goes by that, and by `names`.

        On loopback by local names, too. Elsewhere, without `names`, by any.
        """
        names = tuple(names)
        if is_loopback(host):
            return cls((*_LOCAL, host, *names), origins)
        if not names:
            return cls(None, origins)
        return cls(names if host in _ALL else (host, *names), origins)

    def check(
        self, method: str, scheme: str, headers: Mapping[str, str], *, public: bool = False
    ) -> str | None:
        """Return the foreign origin that may ask, None for the usual case, else ApiError (403).

        public: it asks whether the server lives. Balancers do so by its address, or by no Host at
                all; both are nothing a browser can be made to send for a name of somebody else's.

        A page that points its own name at this machine (DNS rebinding) is told by Host; a page that
        sends requests from elsewhere by Origin, which browsers put on everything that is not a
        plain read.
        """
        host = headers.get("host", "").lower()
        try:
            name = name_of(host) if host else ""
        except ValueError:
            raise ApiError(
                INVALID,
                f"the request is for {host[:100]!r}, which is no name of a host; send a name or an"
                " address, and its port",
            ) from None
        known = self.names is None or name in self.names
        if not known and not (public and (not name or is_address(name))):
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


def preflight(origin: str, asked: str = "") -> dict[str, str]:
    """Return the headers that answer an allowed page's question whether it may ask.

    asked: the headers it wants to send (Access-Control-Request-Headers); the official client has a
           dozen of its own. An allowed page may send any; what is not read changes nothing.
    """
    wanted = (name.strip().lower() for name in asked.split(",")[:_MOST_HEADERS])
    allowed = dict.fromkeys((*_HEADERS, *filter(_TOKEN.fullmatch, wanted)))
    return cors(origin) | {
        "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE",
        "access-control-allow-headers": ", ".join(allowed),
        "access-control-max-age": "600",
    }


def _own_origin(origin: str) -> str:
    """Return an origin that the operator gives, in small letters; ValueError for what is none."""
    scheme = _SCHEME.match(origin := origin.lower().rstrip("/"))
    try:
        name_of(origin[scheme.end() if scheme else 0 :])
    except ValueError:
        scheme = None
    if scheme is None:
        raise ValueError(
            f"{origin!r} is no origin; write scheme://host or scheme://host:port, no path and no"
            " wildcards: https://chat.example.org, chrome-extension://ID, app://obsidian.md"
        )
    return origin


def _own_name(name: str) -> str:
    """Return a name that the operator gives, as `name_of`; ValueError for what is none."""
    try:
        return name_of(f"[{name}]" if ":" in name and not name.startswith("[") else name)
    except ValueError:
        raise ValueError(
            f"{name!r} is no name of a server; write a name or an address, no scheme, no port and"
            " no wildcard: chat.example.org"
        ) from None
