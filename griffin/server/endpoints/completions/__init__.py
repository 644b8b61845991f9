"""/v1/completions: texts that are continued, or measured."""

from griffin.server.endpoints.completions.body import POLICY, CompletionBody
from griffin.server.endpoints.completions.reply import Completion
from griffin.server.protocol.operation import RUN, Operation
from griffin.server.protocol.sampling import SAMPLING_BOUNDS
from griffin.server.protocol.telling import TELLING_BOUNDS

operations = (
    Operation(
        "POST /v1/completions",
        "Continue texts, or measure them.",
        Completion,
        CompletionBody,
        cases=RUN,
        policy=POLICY,
        bounds=SAMPLING_BOUNDS | TELLING_BOUNDS | {"n": "max_choices", "logprobs": "max_logprobs"},
        streams=True,
        chunk=Completion,
    ),
)
