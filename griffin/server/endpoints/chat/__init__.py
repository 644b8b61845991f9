"""/v1/chat/completions: answers to conversations."""

from griffin.server.endpoints.chat.body import POLICY, ChatBody
from griffin.server.endpoints.chat.reply import ChatChunk, ChatCompletion
from griffin.server.protocol.operation import RUN, Operation
from griffin.server.protocol.sampling import SAMPLING_BOUNDS
from griffin.server.protocol.telling import TELLING_BOUNDS

operations = (
    Operation(
        "POST /v1/chat/completions",
        "Answer a conversation.",
        ChatCompletion,
        ChatBody,
        cases=RUN,
        policy=POLICY,
        bounds=SAMPLING_BOUNDS
        | TELLING_BOUNDS
        | {
            "messages": "max_messages",
            "n": "max_choices",
            "top_logprobs": "max_logprobs",
            "tools": "max_tools",
        },
        streams=True,
        chunk=ChatChunk,
    ),
)
