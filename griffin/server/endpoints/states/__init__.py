"""/v1/states: what was read once, for many to go on from. A session can begin there."""

from griffin.server import errors
from griffin.server.endpoints.sessions.body import Fork
from griffin.server.endpoints.sessions.reply import SessionObject
from griffin.server.endpoints.states.body import StateBody
from griffin.server.endpoints.states.reply import StateList, StateObject
from griffin.server.protocol.operation import BODY, KEPT, NAMED, RUN, Operation
from griffin.server.protocol.reply import Deleted

_PATH = "/v1/states/{name}"

operations = (
    Operation(
        "GET /v1/states", "List the saved states.", StateList, cases=(errors.INVALID,), paged=True
    ),
    Operation(
        "POST /v1/states",
        "Save a state.",
        StateObject,
        StateBody,
        cases=(*RUN, errors.NO_TURN, errors.TAKEN),
        bounds={"tokens": "max_prompt_tokens", "messages": "max_messages"},
    ),
    Operation(f"GET {_PATH}", "Show a state.", StateObject, cases=NAMED),
    Operation(f"DELETE {_PATH}", "Delete a state for good.", Deleted, cases=NAMED),
    Operation(
        f"GET {_PATH}/data",
        "Take a state away, as a state file.",
        None,
        cases=(*NAMED, errors.UNSUPPORTED, *KEPT),
        octets="reply",
    ),
    Operation(
        f"PUT {_PATH}/data",
        "Save a state that is a state file.",
        StateObject,
        cases=(*NAMED, *BODY, *KEPT, errors.UNSUPPORTED, errors.TOO_LONG, errors.TAKEN),
        octets="body",
    ),
    Operation(
        f"POST {_PATH}/fork",
        "Begin a session from a state.",
        SessionObject,
        Fork,
        cases=(*NAMED, *BODY, *KEPT, errors.TAKEN),
        empty=True,
    ),
)
