"""/v1/responses with `stream`: the events, numbered, in the order that the official client insists
on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from griffin.server.endpoints.responses.body import ResponseRequest
from griffin.server.endpoints.responses.reply import (
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputText,
    ResponseObject,
    ResponseStatus,
    output_call,
    output_message,
    response_object,
)
from griffin.server.errors import ApiError
from griffin.server.http import sse
from griffin.server.protocol.messages import ToolCall
from griffin.server.protocol.reply import Extras, Head, Scored, Usage, new_id, token_logprobs


class ResponseStream:
    """Write one streamed response.

    Call `begin`; then for each item `message` or `call`, any number of `more`, `close`; then `end`
    or `fail`. Each returns the bytes to send. `output` holds the finished items. A call out of
    order is a bug of the caller's: AssertionError.
    """

    def __init__(self, head: Head, request: ResponseRequest) -> None:
        self.head = head
        self.request = request
        self.output: list[OutputItem] = []
        self._number = 0
        self._open: OutputMessage | OutputCall | None = None
        self._texts: list[str] = []
        self._tokens: list[Scored] = []

    def begin(self) -> bytes:
        """Say that the response has begun."""
        started = response_object(self.head, self.request)
        return self._event("response.created", response=started) + self._event(
            "response.in_progress", response=started
        )

    def message(self) -> bytes:
        """Begin a message."""
        item = OutputMessage(id=new_id("msg_"), content=[], status="in_progress")
        opened = self._open_item(item)
        return opened + self._event(
            "response.content_part.added",
            **self._place(),
            content_index=0,
            part=OutputText(text=""),
        )

    def call(self, id: str, name: str) -> bytes:
        """Begin a call of a function; id: its `call_id`."""
        item = OutputCall(
            id=new_id("fc_"), call_id=id, name=name, arguments="", status="in_progress"
        )
        return self._open_item(item)

    def more(self, text: str, tokens: Sequence[Scored] = ()) -> bytes:
        """Add text to the open message, or arguments to the open call."""
        self._texts.append(text)
        if isinstance(self._open, OutputCall):
            return self._event(
                "response.function_call_arguments.delta", **self._place(), delta=text
            )
        self._tokens += tokens
        return self._event(
            "response.output_text.delta",
            **self._place(),
            content_index=0,
            delta=text,
            logprobs=token_logprobs(tokens),
        )

    def close(self, *, whole: bool = True) -> bytes:
        """Finish the open item. whole: False if it met max_output_tokens."""
        opened, text = self._open, "".join(self._texts)
        place = self._place()
        if isinstance(opened, OutputCall):
            item: OutputItem = output_call(
                ToolCall(opened.call_id, opened.name, text), whole=whole, id=opened.id
            )
            written = self._event(
                "response.function_call_arguments.done", **place, name=opened.name, arguments=text
            )
        else:
            assert opened is not None
            item = output_message(text, self._tokens, whole=whole, id=opened.id)
            part = item.content[0]
            written = self._event(
                "response.output_text.done",
                **place,
                content_index=0,
                text=text,
                logprobs=token_logprobs(self._tokens),
            ) + self._event("response.content_part.done", **place, content_index=0, part=part)
        written += self._event(
            "response.output_item.done", output_index=place["output_index"], item=item
        )
        self.output.append(item)
        self._open, self._texts, self._tokens = None, [], []
        return written

    def end(self, used: Usage, *, whole: bool = True, extras: Extras | None = None) -> bytes:
        """End the response. whole: False if it met max_output_tokens."""
        assert self._open is None
        status: ResponseStatus = "completed" if whole else "incomplete"
        return self._event(
            f"response.{status}", response=self.object(status, used=used, extras=extras)
        )

    def fail(self, error: ApiError) -> bytes:
        """End the response with an error; what was open stays unfinished."""
        return self._event("response.failed", response=self.object("failed", error=error))

    def object(
        self,
        status: ResponseStatus,
        *,
        used: Usage | None = None,
        error: ApiError | None = None,
        extras: Extras | None = None,
    ) -> ResponseObject:
        """Return the response object as it stands; what a store keeps after the end."""
        return response_object(
            self.head,
            self.request,
            self.output,
            status=status,
            used=used,
            error=error,
            extras=extras,
        )

    def _open_item(self, item: OutputItem) -> bytes:
        assert self._open is None
        self._open = item
        return self._event("response.output_item.added", output_index=len(self.output), item=item)

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open.id, "output_index": len(self.output)}

    def _event(self, type: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return sse.data({"type": type, "sequence_number": number, **fields}, event=type)
