"""Bodies in, and what is made of them: bounded in size, in time, and all together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress

from griffin.server import protocol as p
from griffin.server.errors import BAD_MEDIA, INVALID, NOT_READY, SLOW_BODY, TOO_MANY, ApiError
from griffin.server.http.asgi import Gone, Receive
from griffin.server.limits import Limits

_CLOSE = {"connection": "close"}  # what is left of the body will not be read
# A body so many times too large is let pass by before it is refused, for so many seconds at most.
_DROPPED, _PATIENCE = 8, 5.0


class Budget:
    """Bytes of bodies and grammars that may be held at a time, each until its request is answered.

    A holder (a key, or an address where there are no keys) may have as much as it leaves free: half
    of all if it is alone, a third each of two. So there is always room for one more.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._by: Counter[str] = Counter()
        self._shared: Counter[tuple[str, Hashable]] = Counter()

    def take(self, count: int, holder: str = "") -> None:
        """Count some bytes, or raise ApiError (429 or 503, worth another try).

        holder: who has them; "" may have all of it.
        """
        left = self.most - self.held - count
        if holder and self._by[holder] + count > left:
            raise ApiError(
                TOO_MANY,
                f"the bodies and grammars that you have under way hold {self._by[holder]} bytes,"
                f" which leaves no room for {count} more beside those of others; send fewer at"
                " once",
                retry_after=1.0,
                headers=_CLOSE,
            )
        if left < 0:
            raise ApiError(
                NOT_READY,
                "too many large bodies and grammars are under way; try again",
                retry_after=1.0,
                headers=_CLOSE,
            )
        self.held += count
        self._by[holder] += count

    def give(self, count: int, holder: str = "") -> None:
        """Give bytes back."""
        self.held -= count
        self._by[holder] -= count
        if not self._by[holder]:
            del self._by[holder]

    def share(self, thing: Hashable, count: int, holder: str) -> None:
        """Count what several requests of a holder may have together, once; as `take` does."""
        if not self._shared[holder, thing]:
            self.take(count, holder)
        self._shared[holder, thing] += 1

    def unshare(self, thing: Hashable, count: int, holder: str) -> None:
        """Give back what one of them has; with the last, its bytes."""
        self._shared[holder, thing] -= 1
        if not self._shared[holder, thing]:
            del self._shared[holder, thing]
            self.give(count, holder)


async def read_body(
    receive: Receive,
    headers: Mapping[str, str],
    limits: Limits,
    take: Callable[[int], None],
    seconds: float,
    media: str = "application/json",
) -> bytes:
    """Read a request's body, which must be JSON or of another type; empty if there is none.

    take: is told of bytes before they are held, and may refuse them.
    A body that says it is too large is refused unread, or, if it is not much too large, unkept; one
    that grows too large, while it comes.
    Raises ApiError: 413, 415, and 408 for a body that is not there after so many seconds. Raises
    Gone if the client left.
    """
    check_media(headers, media)
    declared = headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit() and len(declared) <= 15):
        raise ApiError(INVALID, "content-length is no number", headers=_CLOSE)
    if int(declared) > limits.max_body_bytes:
        if int(declared) <= _DROPPED * limits.max_body_bytes and "expect" not in headers:
            await _drop(receive, min(seconds, _PATIENCE))
        raise _closing(p.too_large(int(declared), limits))
    pieces: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                piece = message.get("body", b"")
                if length + len(piece) > limits.max_body_bytes:
                    raise _closing(p.too_large(length + len(piece), limits))
                take(len(piece))
                length += len(piece)
                pieces.append(piece)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise ApiError(
            SLOW_BODY,
            f"the body was not there after {seconds:g} seconds; send it faster",
            headers=_CLOSE,
        ) from None
    return b"".join(pieces)


async def _drop(receive: Receive, seconds: float) -> None:
    """Let a body pass by for so long: who sends all before reading would see a closed connection,
    and not the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive()).get("more_body", False):
                pass


def check_media(headers: Mapping[str, str], wanted: str = "application/json") -> None:
    """Raise ApiError (415) for what is not plain JSON, or of another type that is wanted.

    No foreign page can send those unasked.
    """
    empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    media, *parameters = headers.get("content-type", "").split(";")
    if empty and not media:
        return
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        charset = value.strip('"')
        if name.lower() == "charset" and charset.lower() not in ("utf-8", "utf8"):
            raise ApiError(
                BAD_MEDIA,
                f"the body is in the charset {charset[:32]!r}; send it in utf-8",
                headers=_CLOSE,
            )
    if media.strip().lower() != wanted:
        raise ApiError(
            BAD_MEDIA,
            f"the body is {media.strip()[:64] or 'of no type'}; send content-type: {wanted}",
            headers=_CLOSE,
        )
    if (coding := headers.get("content-encoding", "identity")) != "identity":
        raise ApiError(
            BAD_MEDIA, f"the body is in {coding[:32]!r} encoding; send it as it is", headers=_CLOSE
        )


def _closing(error: ApiError) -> ApiError:
    return ApiError(error.case, error.message, error.param, headers=_CLOSE)
