"""/v1/responses: answers that can be gone on from by their id."""

from griffin.server.endpoints.responses.body import POLICY, ResponseBody
from griffin.server.endpoints.responses.reply import ResponseObject
from griffin.server.protocol.operation import NAMED, RUN, Operation
from griffin.server.protocol.reply import Deleted
from griffin.server.protocol.sampling import SAMPLING_BOUNDS

operations = (
    Operation(
        "POST /v1/responses",
        "Answer, and remember where one was.",
        ResponseObject,
        ResponseBody,
        cases=RUN,
        policy=POLICY,
        bounds=SAMPLING_BOUNDS
        | {
            "input": "max_messages",
            "top_logprobs": "max_logprobs",
            "tools": "max_tools",
        },
        streams=True,
    ),
    Operation("GET /v1/responses/{id}", "Show a stored response.", ResponseObject, cases=NAMED),
    Operation("DELETE /v1/responses/{id}", "Forget a stored response.", Deleted, cases=NAMED),
)
