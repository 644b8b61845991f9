"""/api: what Ollama's clients ask, answered by the one model that is served."""

from griffin.server import errors
from griffin.server.endpoints.ollama.body import (
    POLICY,
    EmbedBody,
    EmbedPromptBody,
    GenerateBody,
    OllamaChatBody,
    ShowBody,
)
from griffin.server.endpoints.ollama.reply import (
    ModelDetails,
    OllamaChat,
    OllamaModels,
    OllamaText,
    OllamaVector,
    OllamaVectors,
    OllamaVersion,
    RunningModels,
)
from griffin.server.protocol.operation import BODY, RUN, Operation

_ONE = "one model is served: fetch it with `griffin pull`, start `griffin serve --model` with it"

# What Ollama has and this server has not, by how the paths begin, and what to do instead.
ABSENT = {
    **dict.fromkeys(("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"), _ONE),
    "/api/blobs": _ONE,
    "/api/web_": "this server searches nothing",
}

_MEASURED = (
    *(*BODY, errors.UNSUPPORTED, errors.TOO_LONG, errors.NO_MODEL),
    *(errors.QUEUE_FULL, errors.TIMEOUT),
)

operations = (
    Operation("GET /api/version", "Say which Ollama this is as good as.", OllamaVersion),
    Operation("GET /api/tags", "List the model, by each of its names.", OllamaModels),
    Operation("GET /api/ps", "List the model as one that is loaded.", RunningModels),
    Operation(
        "POST /api/show",
        "Show the model.",
        ModelDetails,
        ShowBody,
        cases=(*BODY, errors.NO_MODEL),
    ),
    Operation(
        "POST /api/chat",
        "Answer a conversation, in Ollama's form.",
        OllamaChat,
        OllamaChatBody,
        cases=RUN,
        policy=POLICY,
        bounds={"messages": "max_messages", "top_logprobs": "max_logprobs", "tools": "max_tools"},
        lines=True,
    ),
    Operation(
        "POST /api/generate",
        "Answer a message, or continue a text, in Ollama's form.",
        OllamaText,
        GenerateBody,
        cases=RUN,
        policy=POLICY,
        bounds={"top_logprobs": "max_logprobs"},
        lines=True,
    ),
    Operation(
        "POST /api/embed",
        "Turn texts into vectors, in Ollama's form.",
        OllamaVectors,
        EmbedBody,
        cases=_MEASURED,
        bounds={"input": "max_inputs"},
    ),
    Operation(
        "POST /api/embeddings",
        "Turn a text into a vector.",
        OllamaVector,
        EmbedPromptBody,
        cases=_MEASURED,
    ),
)
