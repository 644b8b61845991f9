"""HTTP in front of the engine. The protocol (bodies in, bodies out) imports no torch and no engine.

limits: what a request may ask for. errors: what a refusal looks like. protocol: bodies to requests,
results to bodies. sse: streams of events. openapi: the document that describes all of it.
"""
