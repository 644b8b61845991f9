"""Bodies to requests, results to bodies. No torch, no engine, no clock but an answer's own date.

parse_*(body, limits) gives a request that can be run as it is, or raises ApiError. The builders
give Structs; `encode` makes a body of one and `griffin.server.http.sse.data` an event.
"""

from griffin.server.protocol.body import ignored_header, too_large
from griffin.server.protocol.bounds import check_model, check_name
from griffin.server.protocol.chat import ChatRequest, parse_chat
from griffin.server.protocol.chat_reply import ChatAnswer, ChatChunks, chat_completion
from griffin.server.protocol.completion_reply import CompletionAnswer, CompletionChunks, completion
from griffin.server.protocol.completions import CompletionRequest, parse_completion
from griffin.server.protocol.formats import JsonFormat
from griffin.server.protocol.identity import Identity, Source, identify, state_header
from griffin.server.protocol.messages import Message, ToolCall, turns
from griffin.server.protocol.reply import (
    Candidate,
    Extras,
    Head,
    Scored,
    Usage,
    encode,
    fingerprint,
    new_id,
    request_id,
    usage,
)
from griffin.server.protocol.response_reply import (
    ResponseObject,
    output_call,
    output_message,
    response_object,
)
from griffin.server.protocol.response_stream import ResponseStream
from griffin.server.protocol.responses import ResponseRequest, parse_response
from griffin.server.protocol.sessions import (
    Page,
    Reading,
    StateCreate,
    parse_append,
    parse_fork,
    parse_page,
    parse_rewind,
    parse_session_change,
    parse_session_create,
    parse_state_create,
)
from griffin.server.protocol.tokens import (
    DetokenizeRequest,
    TemplateRequest,
    TokenizeRequest,
    parse_detokenize,
    parse_template,
    parse_tokenize,
)
from griffin.server.protocol.tools import Tool, ToolChoice

__all__ = [
    "Candidate",
    "ChatAnswer",
    "ChatChunks",
    "ChatRequest",
    "CompletionAnswer",
    "CompletionChunks",
    "CompletionRequest",
    "DetokenizeRequest",
    "Extras",
    "Head",
    "Identity",
    "JsonFormat",
    "Message",
    "Page",
    "Reading",
    "ResponseObject",
    "ResponseRequest",
    "ResponseStream",
    "Scored",
    "Source",
    "StateCreate",
    "TemplateRequest",
    "TokenizeRequest",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Usage",
    "chat_completion",
    "check_model",
    "check_name",
    "completion",
    "encode",
    "fingerprint",
    "identify",
    "ignored_header",
    "new_id",
    "output_call",
    "output_message",
    "parse_append",
    "parse_chat",
    "parse_completion",
    "parse_detokenize",
    "parse_fork",
    "parse_page",
    "parse_response",
    "parse_rewind",
    "parse_session_change",
    "parse_session_create",
    "parse_state_create",
    "parse_template",
    "parse_tokenize",
    "request_id",
    "response_object",
    "state_header",
    "too_large",
    "turns",
    "usage",
]
