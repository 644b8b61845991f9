"""Strings <-> ids, chat turns, streaming detokenizer. Imports no torch.

A request's text enters through `Tokenizer.encode` or `Chat.ids` and leaves through
`StreamDetokenizer`. Nothing a user types can become a control token; only `Chat` and `encode(...,
allow_control=True)` make those.
"""

from griffin.text.chat import Chat, Message
from griffin.text.detokenizer import StreamDetokenizer
from griffin.text.lesson import lesson
from griffin.text.template import TemplateError
from griffin.text.tokenizer import Tokenizer, find_tokenizer
from griffin.text.two_answers import two_answers

__all__ = [
    "Chat",
    "Message",
    "StreamDetokenizer",
    "TemplateError",
    "Tokenizer",
    "find_tokenizer",
    "lesson",
    "two_answers",
]
