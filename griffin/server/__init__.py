"""HTTP in front of the engine. The protocol (bodies in, bodies out) imports no torch and no engine.

build: from a model to a Service. limits, settings: what a request and the server may take. errors:
what a refusal looks like. http: requests on the wire. protocol: bodies to requests, results to
bodies. routes: who answers what. app, run: the application, and the process around it. fleet:
several such processes at one address. page: the chat page.
"""
