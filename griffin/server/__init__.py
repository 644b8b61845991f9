"""HTTP in front of the engine. What bodies are read by and replies made of imports no torch.

build: from a model to a Service. limits, settings: what a request and the server may take. errors:
what a refusal looks like. http: requests on the wire. endpoints: what can be asked, one folder
each. protocol: what their bodies and replies share. app, run: the application, and the process
around it. fleet: several such processes at one address. page: the chat page.
"""
