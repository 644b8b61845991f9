"""/tokenize, /detokenize, /apply-template, /tokenizer_info: between text and ids, as vLLM and
llama.cpp have it."""

from griffin.server import errors
from griffin.server.endpoints.tokens.body import DetokenizeBody, TemplateBody, TokenizeBody
from griffin.server.endpoints.tokens.reply import Rendered, Text, TokenizerInfo, Tokens
from griffin.server.protocol.operation import BODY, Operation

_READ = (*BODY, errors.NO_MODEL)

operations = (
    Operation(
        "POST /tokenize",
        "Turn text into ids.",
        Tokens,
        TokenizeBody,
        cases=_READ,
        bounds={"messages": "max_messages"},
    ),
    Operation(
        "POST /detokenize",
        "Turn ids into text.",
        Text,
        DetokenizeBody,
        cases=_READ,
        bounds={"tokens": "max_prompt_tokens"},
    ),
    Operation(
        "POST /apply-template",
        "Show what the model reads.",
        Rendered,
        TemplateBody,
        cases=_READ,
        bounds={"messages": "max_messages"},
    ),
    Operation("GET /tokenizer_info", "Tell what a remote tokenizer needs.", TokenizerInfo),
)
