"""Token ids as bytes, and the hash chain that tells two readings apart at any length."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from griffin.sessions.errors import StateTorn

NOTHING = bytes(16)  # the chain before the first token
ID_BYTES = 4  # of an id that is packed


def pack_ids(ids: Iterable[int]) -> bytes:
    """Return ids as 32-bit integers, least significant byte first."""
    ids = tuple(ids)
    return struct.pack(f"<{len(ids)}i", *ids)


def unpack_ids(packed: bytes) -> tuple[int, ...]:
    """Return the ids that `pack_ids` packed; StateTorn for bytes it could not have made."""
    if len(packed) % ID_BYTES == 0:
        ids = struct.unpack(f"<{len(packed) // ID_BYTES}i", packed)
        if not ids or min(ids) >= 0:
            return ids
    raise StateTorn("ids of a turn are damaged: some of them are no token's")


def extend_chain(chain: bytes, ids: Iterable[int]) -> bytes:
    """Return the chain, 16 bytes, after more tokens.

    One hash a token (half a microsecond), so that it depends on the tokens alone and not on where
    turns or calls end, and can be gone on with without the tokens before.
    """
    for i in ids:
        chain = hashlib.blake2b(chain + i.to_bytes(4, "little"), digest_size=16).digest()
    return chain


def check_ids(ids: Iterable[int], vocab_size: int, what: str) -> tuple[int, ...]:
    """Return ids as a tuple; ValueError for one that is no whole number below the vocabulary."""
    found = tuple(ids)
    for place, i in enumerate(found):
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < vocab_size:
            raise ValueError(
                f"{what} hold {i!r} at place {place}; ids are whole numbers below {vocab_size}"
            )
    return found
