"""/v1/messages with `stream`: the events, in the order that Anthropic's client puts together."""

from __future__ import annotations

from typing import Any

from griffin.server.endpoints.messages.reply import (
    NO_INPUT,
    MessageFailure,
    StopReason,
    TextBlock,
    ToolUseBlock,
    assistant_message,
    message_usage,
)
from griffin.server.errors import ApiError
from griffin.server.http import sse
from griffin.server.protocol.reply import Extras, Head, Usage

PING = sse.data({"type": "ping"}, event="ping")


class MessageStream:
    """Write one streamed message.

    Call `begin`; then for each block `text` or `call`, any number of `more`, and `close`; then
    `end`. Each returns the bytes to send. A block that is open is closed by the next.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._index = 0
        self._open: str | None = None  # the kind of the open block's deltas

    @property
    def in_text(self) -> bool:
        """Whether the open block is text."""
        return self._open == "text_delta"

    def begin(self, used: Usage) -> bytes:
        """Say that the message has begun."""
        started = assistant_message(self._head, used)
        return self._event("message_start", message=started) + PING

    def text(self) -> bytes:
        """Begin a block of text."""
        return self._block("text_delta", TextBlock(text=""))

    def call(self, id: str, name: str) -> bytes:
        """Begin a call of a tool."""
        return self._block("input_json_delta", ToolUseBlock(id=id, name=name, input=NO_INPUT))

    def more(self, text: str) -> bytes:
        """Add text to the open block, or arguments to the open call."""
        field = "text" if self.in_text else "partial_json"
        delta = {"type": self._open, field: text}
        return self._event("content_block_delta", index=self._index, delta=delta)

    def close(self) -> bytes:
        """Finish the open block, if one is."""
        if self._open is None:
            return b""
        self._open = None
        self._index += 1
        return self._event("content_block_stop", index=self._index - 1)

    def end(
        self, used: Usage, stopped: tuple[StopReason, str | None], extras: Extras | None = None
    ) -> bytes:
        """End the message. stopped: why, and by which stop sequence."""
        delta = {"stop_reason": stopped[0], "stop_sequence": stopped[1]}
        told = {} if extras is None else {"griffin": extras}
        last = self._event("message_delta", delta=delta, usage=message_usage(used), **told)
        return last + self._event("message_stop")

    def fail(self, error: ApiError, request_id: str) -> bytes:
        """End the stream with an error."""
        return sse.data(MessageFailure.of(error, request_id), event="error")

    def _block(self, delta: str, block: TextBlock | ToolUseBlock) -> bytes:
        closed = self.close()
        self._open = delta
        return closed + self._event("content_block_start", index=self._index, content_block=block)

    def _event(self, type: str, **fields: Any) -> bytes:
        return sse.data({"type": type, **fields}, event=type)
