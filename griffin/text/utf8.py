"""UTF-8 in pieces: text as soon as it is certain, one U+FFFD for each byte that is none."""

REPLACEMENT = "\ufffd"


def decode_prefix(data: bytes) -> tuple[str, bytes]:
    """Decode what is certain of `data`.

    Returns the text and the at most three bytes at the end that may still become one character.
    Every byte that belongs to no character becomes one U+FFFD, as sentencepiece does (Python's own
    "replace" would give one for a whole broken sequence).
    """
    text: list[str] = []
    start = 0
    while True:
        try:
            text.append(data[start:].decode("utf-8"))
            return "".join(text), b""
        except UnicodeDecodeError as error:
            text.append(data[start : start + error.start].decode("utf-8"))
            bad_start, bad_end = start + error.start, start + error.end
            if bad_end == len(data) and error.reason == "unexpected end of data":
                return "".join(text), data[bad_start:]
            text.append(REPLACEMENT * (bad_end - bad_start))
            start = bad_end


def decode_all(parts: list[bytes]) -> str:
    """Decode `parts` put together; equals feeding them one by one through `decode_prefix`."""
    try:
        return b"".join(parts).decode("utf-8")
    except UnicodeDecodeError:
        # Part by part: each call sees a few bytes, so a hostile sequence of broken bytes stays
        # linear.
        text: list[str] = []
        rest = b""
        for part in parts:
            certain, rest = decode_prefix(rest + part)
            text.append(certain)
        return "".join(text) + REPLACEMENT * len(rest)
