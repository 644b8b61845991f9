"""Ids, one at a time, to text that is final."""

from collections.abc import Sequence

from griffin.text.tokenizer import Tokenizer
from griffin.text.utf8 import REPLACEMENT, decode_prefix


class StreamDetokenizer:
    """Turn a stream of ids into text whose every piece is final.

    Never gives half a character, nor a U+FFFD that the next token would resolve, nor the beginning
    of a stop string. The pieces together equal `tokenizer.decode(ids)`, cut before the stop string
    that is complete first (of several that end at the same character, the longest). Work per token
    does not grow with the stream.

    early:   that many ids come first in whose text no stop string counts.
    stopped: the stop string that was met, or None. Ids pushed after it give "".
    offset:  characters of decoded text so far, held-back ones included: read before `push`, it is
             where that token's text begins.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_strings: Sequence[str] = (),
        skip_control: bool = True,
        early: int = 0,
    ) -> None:
        if isinstance(stop_strings, str):
            raise ValueError(
                f"stop strings must be a list of strings, got the string {stop_strings!r}"
            )
        if not all(stop_strings):
            raise ValueError("a stop string is empty; it would stop before the first token")
        self.stopped: str | None = None
        self.offset = 0
        self._tokenizer = tokenizer
        self._skip = tokenizer.control_ids if skip_control else frozenset()
        self._early = early
        self._bytes = b""  # the beginning of a character, at most three bytes
        self._held = ""  # the beginning of a stop string
        self._matchers = [_Matcher(stop) for stop in stop_strings]

    def push(self, id: int) -> str:
        """Add a token; return the text that has become final, often "". ValueError for an id out of
        range."""
        early, self._early = self._early > 0, max(0, self._early - 1)
        if self.stopped is not None or id in self._skip:
            return ""
        text, self._bytes = decode_prefix(self._bytes + self._tokenizer.token_bytes(id))
        if early:
            self.offset += len(text)
            return text
        return self._release(text)

    def finish(self) -> str:
        """End the stream; return what was held back: no stop string came of it, nor a character."""
        if self.stopped is not None:
            return ""
        text, self._bytes = REPLACEMENT * len(self._bytes), b""
        text = self._release(text) + self._held
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        self.offset += len(text)
        if not self._matchers:
            return text
        whole = self._held + text
        for index, character in enumerate(text):
            met = [matcher.stop for matcher in self._matchers if matcher.advance(character)]
            if met:
                self.stopped = max(met, key=len)
                end = len(whole) - len(text) + index + 1
                self._held, self._bytes = "", b""
                return whole[: end - len(self.stopped)]
        keep = max(matcher.matched for matcher in self._matchers)
        self._held = whole[len(whole) - keep :]
        return whole[: len(whole) - keep]


class _Matcher:
    """One stop string and how much of it the stream's end matches (Knuth, Morris, Pratt 1977)."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        # By matched length - 1: the next shorter match that is also a suffix.
        self._shorter = [0] * len(stop)
        length = 0
        for index in range(1, len(stop)):
            while length and stop[index] != stop[length]:
                length = self._shorter[length - 1]
            length += stop[index] == stop[length]
            self._shorter[index] = length

    def advance(self, character: str) -> bool:
        """Read one character; return whether the stop string is now complete."""
        while self.matched and character != self.stop[self.matched]:
            self.matched = self._shorter[self.matched - 1]
        self.matched += character == self.stop[self.matched]
        return self.matched == len(self.stop)
