"""/v1/models: what is served."""

from griffin.server import errors
from griffin.server.endpoints.models.reply import ModelList, ModelObject
from griffin.server.protocol.operation import Operation

operations = (
    Operation("GET /v1/models", "List the models.", ModelList),
    Operation("GET /v1/models/{model}", "Show a model.", ModelObject, cases=(errors.NO_MODEL,)),
)
