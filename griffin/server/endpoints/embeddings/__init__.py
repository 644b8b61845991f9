"""/v1/embeddings: vectors of texts, of what the model's trunk made of them."""

from griffin.server import errors
from griffin.server.endpoints.embeddings.body import POLICY, EmbeddingsBody
from griffin.server.endpoints.embeddings.reply import Embeddings
from griffin.server.protocol.operation import BODY, Operation

operations = (
    Operation(
        "POST /v1/embeddings",
        "Turn texts into vectors.",
        Embeddings,
        EmbeddingsBody,
        cases=(
            *(*BODY, errors.UNSUPPORTED, errors.TOO_LONG, errors.NO_MODEL),
            *(errors.QUEUE_FULL, errors.TIMEOUT),
        ),
        policy=POLICY,
        bounds={"input": "max_inputs"},
    ),
)
