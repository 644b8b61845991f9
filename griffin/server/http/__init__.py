"""A request and its answer on the wire, whatever is asked and whoever answers.

sockets, connections: where it comes in. hosts, keys: who may ask. asgi, body, exchange, sse: what
is read and written. static, openapi: what is the same for everybody. Knows no model, no engine and
no service, and imports no torch.
"""
