"""API keys, compared in constant time, each a namespace of its own."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from griffin.server.errors import BAD_KEY, ApiError
from griffin.server.http.hosts import is_loopback

_SHORTEST = 16
_BARE = ("x-api-key", "api-key")  # headers that hold nothing but a key


class Keys:
    """The keys of one server. Without any, everybody may ask, in the one namespace "".

    Only digests are kept. A key's namespace is made of its digest: what is kept for one key
    (sessions, states, cached prefixes) is not seen by another.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """Take the keys; ValueError for one that is short or could not be sent in a header."""
        self._digests: list[bytes] = []
        for number, key in enumerate(keys, start=1):
            if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError(
                    f"API key {number} cannot be used: a key has at least {_SHORTEST} printable"
                    " ASCII characters and no spaces (`openssl rand -hex 24` makes one)"
                )
            self._digests.append(_digest(key))

    def __bool__(self) -> bool:
        return bool(self._digests)

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read a file of one key a line; empty lines and those that begin with # are passed over.

        ValueError for a file that others may read, and for one without a key.
        """
        if path.stat().st_mode & 0o077:
            raise ValueError(f"others may read {path}; close it first: chmod 600 {path}")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"{path} holds no key; write one a line")
        return cls(found)

    @classmethod
    def from_environment(cls, name: str) -> Keys:
        """Read the keys in an environment variable, parted by spaces; ValueError if it has none."""
        found = os.environ.get(name, "").split()
        if not found:
            raise ValueError(f"the environment variable {name} holds no key")
        return cls(found)

    def namespace(self, headers: Mapping[str, str]) -> str:
        """Return the namespace of who asks; ApiError (401) if no key of ours comes with it.

        headers: by lower-case names. A key is in `authorization` (Bearer), or as Anthropic's and
                 Azure's clients send it, in `x-api-key` or `api-key`; several are one and the same.
        All keys are compared, whichever fits, so the time tells nothing.
        """
        if not self._digests:
            return ""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        sent = [bearer.strip() if scheme.lower() == "bearer" else "", *map(headers.get, _BARE)]
        keys = {key for key in sent if key}
        if len(keys) > 1:
            raise ApiError(BAD_KEY, "two different API keys were sent; send one")
        given = _digest("".join(keys))
        found = [digest for digest in self._digests if hmac.compare_digest(digest, given)]
        if not found:
            what = "a wrong API key" if keys or bearer else "no API key"
            raise ApiError(BAD_KEY, f"{what} was sent; send one as Authorization: Bearer KEY")
        # Hashed once more: what lies on the disk under this name must not be what keys are compared
        # with.
        return "key-" + hashlib.sha256(b"griffin namespace" + found[0]).hexdigest()[:32]


def check_exposure(
    host: str, uds: Path | None, keys: Keys, insecure: bool, names: Collection[str] | None = None
) -> None:
    """Raise ValueError for a server open to the network without keys, unless that is wanted.

    names: those it goes by. Without keys nothing else tells a page that reached it by a name of its
           own (DNS rebinding) from people who may ask. None: something else sees to that.
    """
    if uds is not None or is_loopback(host) or keys:
        return
    if not insecure:
        raise ValueError(
            f"{host} can be reached from other machines, and no API key is set: anybody could use"
            " this server. Give keys with --key-file or --key-env, or say --insecure-no-auth if"
            " something else guards it"
        )
    if names is not None and not names:
        raise ValueError(
            "without API keys any web page that somebody here opens could use this server by a name"
            " of its own; say by which names or addresses it may be asked: --allow-host NAME, as"
            " often as needed"
        )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
