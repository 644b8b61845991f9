"""What stands between a client and this server: TLS, a prefix of all paths, proxies to believe."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterable
from pathlib import Path

from griffin.server.http.asgi import Scope

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


def tls_context(
    certfile: Path | None, keyfile: Path | None = None, password: str | None = None
) -> ssl.SSLContext | None:
    """Return what speaks TLS with a certificate, None without one.

    certfile: PEM, with the chain up to what clients know. keyfile: its key, if that is not in it.
    password: of an encrypted key.
    Raises ValueError for files that are none, or do not belong together.
    """
    if certfile is None:
        if keyfile is not None or password is not None:
            raise ValueError("a key for TLS needs its certificate: --ssl-certfile FILE")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # A function, for OpenSSL would ask whoever sits at the terminal.
        context.load_cert_chain(certfile, keyfile, lambda: password or "")
    except (ssl.SSLError, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        hint = "" if password else "; an encrypted key needs --ssl-keyfile-password"
        files = certfile if keyfile is None else f"{certfile} and {keyfile}"
        raise ValueError(f"{files}: no certificate and key for TLS ({why}){hint}") from None
    return context


def check_trusted(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return addresses and networks of proxies, parted at commas; ValueError for what is none.

    "*" is everybody, for a server that only its proxy reaches.
    """
    found = [one.strip() for text in addresses for one in text.split(",")]
    for one in found:
        try:
            if one != "*":
                ipaddress.ip_network(one)
        except ValueError:
            raise ValueError(
                f"{one!r} is no address of a proxy; write an address, a network such as"
                " 10.0.0.0/8, or * for everybody"
            ) from None
    return ("*",) if "*" in found else tuple(found)


def check_root(path: str) -> str:
    """Return a prefix of paths without a slash at its end; ValueError for what is none."""
    root = path.rstrip("/")
    if root and not _PREFIX.fullmatch(root):
        raise ValueError(
            f"{path!r} is no prefix of paths; write one such as /griffin, of letters, digits, dots,"
            " dashes and underscores"
        )
    return root


def leave_root(scope: Scope, root: str) -> bool:
    """Take a prefix off a request's path; whether a proxy has done that already is the same.

    Returns whether the path was the prefix alone, to which a page's own paths are not relative.
    """
    if scope["path"] == root:
        return bool(root)
    if root and scope["path"].startswith(f"{root}/"):
        scope["path"] = scope["path"].removeprefix(root)
    return False
