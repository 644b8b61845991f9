"""/v1/server, /health, /ready, /metrics: what the server holds and how it does."""

from griffin.server.endpoints.server.reply import Health, ServerObject
from griffin.server.protocol.operation import Operation

operations = (
    Operation("GET /v1/server", "Show what the server holds and allows.", ServerObject),
    Operation("GET /health", "Say that the process lives.", Health, public=True),
    Operation("GET /ready", "Say whether requests are taken.", Health, public=True),
    Operation("GET /metrics", "Give the counters to Prometheus.", None),
)
