"""A message and its answer as one text, for files that people read."""

from __future__ import annotations

EXCHANGE = "exchange"  # role of a turn that holds both
_MARK = "> "


def join_exchange(message: str, answer: str) -> str:
    """Return the message, each line after "> ", an empty line, and the answer."""
    quoted = "\n".join(_MARK + line for line in message.split("\n"))
    return f"{quoted}\n\n{answer}"


def split_exchange(text: str) -> tuple[str, str]:
    """Return message and answer, the inverse of `join_exchange`; ValueError for another text."""
    lines = text.split("\n")
    count = next((n for n, line in enumerate(lines) if not line.startswith(_MARK)), len(lines))
    if not count or lines[count : count + 1] != [""]:
        raise ValueError(f"{text[:60]!r} is not a message and its answer")
    message = "\n".join(line.removeprefix(_MARK) for line in lines[:count])
    return message, "\n".join(lines[count + 1 :])
