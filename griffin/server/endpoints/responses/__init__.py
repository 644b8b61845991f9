"""/v1/responses: answers that can be gone on from by their id."""

from griffin.server import errors
from griffin.server.endpoints.responses.body import POLICY, ResponseBody
from griffin.server.endpoints.responses.reply import InputTokens, ResponseObject
from griffin.server.protocol.items import ItemList
from griffin.server.protocol.operation import NAMED, RUN, Operation
from griffin.server.protocol.reply import Deleted
from griffin.server.protocol.sampling import SAMPLING_BOUNDS

_BOUNDS = SAMPLING_BOUNDS | {
    "input": "max_messages",
    "top_logprobs": "max_logprobs",
    "tools": "max_tools",
}

_CASES = (*RUN, errors.NO_ITEM)

operations = (
    Operation(
        "POST /v1/responses",
        "Answer, and remember where one was.",
        ResponseObject,
        ResponseBody,
        cases=_CASES,
        policy=POLICY,
        bounds=_BOUNDS,
        streams=True,
    ),
    Operation(
        "POST /v1/responses/input_tokens",
        "Count the tokens that an answer would follow.",
        InputTokens,
        ResponseBody,
        cases=_CASES,
        policy=POLICY,
        bounds=_BOUNDS,
    ),
    Operation("GET /v1/responses/{id}", "Show a stored response.", ResponseObject, cases=NAMED),
    Operation("DELETE /v1/responses/{id}", "Forget a stored response.", Deleted, cases=NAMED),
    Operation(
        "GET /v1/responses/{id}/input_items",
        "List what a stored response was asked.",
        ItemList,
        cases=NAMED,
        paged=True,
    ),
)
