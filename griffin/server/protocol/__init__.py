"""What endpoints share of reading bodies and of making answers.

No torch, no engine, no clock but an answer's own date. `encode` makes a body of a Struct, and
`griffin.server.http.sse.data` an event.
"""

from griffin.server.protocol.body import ignored_header, too_large
from griffin.server.protocol.bounds import check_model, check_name
from griffin.server.protocol.formats import JsonFormat
from griffin.server.protocol.identity import Identity, Source, identify, state_header
from griffin.server.protocol.messages import Message, ToolCall, turns
from griffin.server.protocol.page import Page, page_of, parse_page
from griffin.server.protocol.reading import Reading
from griffin.server.protocol.reply import (
    Candidate,
    Deleted,
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
from griffin.server.protocol.structured import AnswerFormat, TextFormat
from griffin.server.protocol.tools import Tool, ToolChoice

__all__ = [
    "AnswerFormat",
    "Candidate",
    "Deleted",
    "Extras",
    "Head",
    "Identity",
    "JsonFormat",
    "Message",
    "Page",
    "Reading",
    "Scored",
    "Source",
    "TextFormat",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Usage",
    "check_model",
    "check_name",
    "encode",
    "fingerprint",
    "identify",
    "ignored_header",
    "new_id",
    "page_of",
    "parse_page",
    "request_id",
    "state_header",
    "too_large",
    "turns",
    "usage",
]
