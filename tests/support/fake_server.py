"""A server without an engine: the protocol behind a mock transport, and the official client in
front of it.

The "model" answers every prompt with the same pieces. Everything else is the room's own code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
from openai import OpenAI

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.endpoints.chat.body import ChatRequest, parse_chat
from griffin.server.endpoints.chat.reply import ChatAnswer, ChatChunks, chat_completion
from griffin.server.endpoints.completions.body import CompletionRequest, parse_completion
from griffin.server.endpoints.completions.reply import (
    CompletionAnswer,
    CompletionChunks,
    completion,
)
from griffin.server.endpoints.responses.body import parse_response
from griffin.server.endpoints.responses.reply import output_call, output_message, response_object
from griffin.server.endpoints.responses.stream import ResponseStream
from griffin.server.errors import ApiError
from griffin.server.http import sse
from griffin.server.limits import Limits

PIECES = ("The", " owl", " sees", " 🦉", ".")
LIMITS = Limits(vocab_size=1000)


def scored(text: str, offset: int = 0, logprob: float | None = -0.5, few: int = 2) -> p.Scored:
    """Return a token with alternatives, itself the best."""
    others = [(text, logprob or 0.0), (" other", -2.0), ("\ufffd", float("-inf"))][:few]
    data = [p.Candidate(t, b"\xe2" if t == "\ufffd" else t.encode(), value) for t, value in others]
    return p.Scored(text, text.encode(), logprob, data if logprob is not None else (), offset)


class FakeServer:
    """Answers as the real one will. Set `problem` to have it refuse; `break_after` to fail in
    mid-stream.

    bodies: what was sent to it. headers: of the last answer.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.problem: ApiError | None = None
        self.break_after: int | None = None
        self.pieces = PIECES
        self.call: p.ToolCall | None = None
        self.cached = 3

    def client(self, **options: Any) -> OpenAI:
        """Return an official client whose network this is."""
        http = httpx2.Client(transport=httpx2.MockTransport(self.handle))
        return OpenAI(api_key="key", base_url="http://griffin.test/v1", http_client=http, **options)

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(json.loads(request.content) if request.content else {})
        routes = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completion,
            "/v1/responses": self._response,
        }
        headers = {"x-request-id": p.request_id(None)}
        try:
            if self.problem is not None:
                raise self.problem
            return routes[request.url.path](request, headers)
        except ApiError as error:
            return httpx2.Response(
                error.status, headers=headers | error.headers, content=error.body()
            )

    def _chat(self, request: httpx2.Request, headers: dict[str, str]) -> httpx2.Response:
        asked = parse_chat(request.content, LIMITS)
        model = p.check_model(asked.model, ["nano"])
        headers |= p.ignored_header(asked.ignored)
        head = p.Head.new("chatcmpl-", model, p.fingerprint("weights"))
        used = p.usage(7, len(self.pieces) * asked.n, self.cached)
        if asked.stream:
            return self._events(self._chat_events(asked, head, used), headers)
        answers = [self._chat_answer(asked) for _ in range(asked.n)]
        extras = p.Extras(state="prefix", seeds=[1])
        return _json(chat_completion(head, answers, used, extras), headers)

    def _chat_answer(self, asked: ChatRequest) -> ChatAnswer:
        tokens = [scored(piece) for piece in self.pieces] if "logprobs" in asked.sampling else None
        if self.call is not None:
            return ChatAnswer(text=None, finish_reason="tool_calls", tool_calls=[self.call])
        return ChatAnswer(text="".join(self.pieces), finish_reason="stop", tokens=tokens)

    def _chat_events(self, asked: ChatRequest, head: p.Head, used: p.Usage) -> Iterator[bytes]:
        chunks = ChatChunks(head, asked.include_usage)
        yield sse.KEEPALIVE
        for index in range(asked.n):
            yield sse.data(chunks.role(index))
        for number, piece in enumerate(self.pieces):
            if number == self.break_after:
                yield sse.error(errors.bug("req_1"))
                return
            for index in range(asked.n):
                if self.call is not None and number == 0:
                    yield sse.data(chunks.call_begin(0, self.call.id, self.call.name, index))
                    yield sse.data(chunks.call_more(0, self.call.arguments[:3], index))
                    yield sse.data(chunks.call_more(0, self.call.arguments[3:], index))
                elif self.call is None:
                    tokens = [scored(piece)] if "logprobs" in asked.sampling else None
                    yield sse.data(chunks.text(piece, tokens, index))
            yield sse.comment("still\nhere")
        for index in range(asked.n):
            yield sse.data(chunks.finish("stop" if self.call is None else "tool_calls", index))
        if asked.include_usage:
            yield sse.data(chunks.usage(used, p.Extras(state_bytes=17_238_016)))
        yield sse.DONE

    def _completion(self, request: httpx2.Request, headers: dict[str, str]) -> httpx2.Response:
        asked = parse_completion(request.content, LIMITS)
        head = p.Head.new("cmpl-", "nano", p.fingerprint("weights"))
        answers = [
            self._completion_answer(asked, prompt)
            for prompt in asked.prompts
            for _ in range(asked.n)
        ]
        used = p.usage(4 * len(asked.prompts), asked.max_tokens * len(answers))
        if not asked.stream:
            return _json(completion(head, answers, used), headers)

        def events() -> Iterator[bytes]:
            chunks = CompletionChunks(head, asked.include_usage)
            for index, answer in enumerate(answers):
                yield sse.data(chunks.text(answer.text, answer.tokens, index))
                yield sse.data(chunks.finish(answer.finish_reason, index))
            if asked.include_usage:
                yield sse.data(chunks.usage(used))
            yield sse.DONE

        return self._events(events(), headers)

    def _completion_answer(
        self, asked: CompletionRequest, prompt: str | tuple[int, ...]
    ) -> CompletionAnswer:
        before = ["ab", "cd"] if asked.echo else []
        after = list(self.pieces[: asked.max_tokens])
        tokens, offset = [], 0
        for number, text in enumerate(before + after):
            tokens.append(scored(text, offset, None if number == 0 and asked.echo else -0.5))
            offset += len(text)
        reason = "length" if asked.max_tokens <= len(self.pieces) else "stop"
        shown = tokens if "logprobs" in asked.sampling else None
        return CompletionAnswer(text="".join(before + after), finish_reason=reason, tokens=shown)

    def _response(self, request: httpx2.Request, headers: dict[str, str]) -> httpx2.Response:
        asked = parse_response(request.content, LIMITS)
        head = p.Head.new("resp_", "nano", p.fingerprint("weights"))
        used = p.usage(9, len(self.pieces), self.cached)
        whole = asked.sampling["max_tokens"] > len(self.pieces)
        stream = ResponseStream(head, asked)
        if asked.stream:
            return self._events(self._response_events(stream, used, whole), headers)
        items = [output_message("".join(self.pieces), whole=whole)]
        if self.call is not None:
            items = [output_call(self.call)]
        status = "completed" if whole else "incomplete"
        return _json(response_object(head, asked, items, status=status, used=used), headers)

    def _response_events(
        self, stream: ResponseStream, used: p.Usage, whole: bool
    ) -> Iterator[bytes]:
        yield stream.begin()
        yield stream.message()
        for number, piece in enumerate(self.pieces):
            if number == self.break_after:
                yield stream.fail(errors.bug("req_1"))
                return
            yield stream.more(
                piece, [scored(piece)] if "logprobs" in stream.request.sampling else ()
            )
        yield stream.close(whole=whole)
        if self.call is not None:
            yield stream.call(self.call.id, self.call.name)
            yield stream.more(self.call.arguments[:4])
            yield stream.more(self.call.arguments[4:])
            yield stream.close()
        yield stream.end(used, whole=whole)

    def _events(self, events: Iterator[bytes], headers: dict[str, str]) -> httpx2.Response:
        # Cut into small pieces anywhere, as a network does.
        joined = b"".join(events)
        pieces = (joined[at : at + 7] for at in range(0, len(joined), 7))
        return httpx2.Response(200, headers=headers | sse.HEADERS, content=pieces)


def _json(value: Any, headers: dict[str, str]) -> httpx2.Response:
    headers = headers | {"content-type": "application/json"}
    return httpx2.Response(200, headers=headers, content=p.encode(value))
