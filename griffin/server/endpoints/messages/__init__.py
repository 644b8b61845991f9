"""/v1/messages: answers to conversations, as Anthropic's interface has them."""

from griffin.server import errors
from griffin.server.endpoints.messages.body import POLICY, MessagesBody
from griffin.server.endpoints.messages.reply import AssistantMessage, TokenCount
from griffin.server.protocol.operation import BODY, RUN, Operation
from griffin.server.protocol.sampling import SAMPLING_BOUNDS

_BOUNDS = SAMPLING_BOUNDS | {
    "messages": "max_messages",
    "stop_sequences": "max_stop",
    "tools": "max_tools",
}

operations = (
    Operation(
        "POST /v1/messages",
        "Answer a conversation, in Anthropic's form.",
        AssistantMessage,
        MessagesBody,
        cases=RUN,
        policy=POLICY,
        bounds=_BOUNDS,
        streams=True,
    ),
    Operation(
        "POST /v1/messages/count_tokens",
        "Count the tokens of a conversation.",
        TokenCount,
        MessagesBody,
        cases=(*BODY, errors.UNSUPPORTED, errors.TOO_LONG, errors.NO_MODEL),
        policy=POLICY,
        bounds=_BOUNDS,
    ),
)
