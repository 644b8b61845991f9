"""The server's patience and room: one frozen object, each field an option of `griffin serve`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from griffin.server.limits import option


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Bound how long the server waits and how much it holds. Each field is above 0.

    What a field bounds its `option` says. Raises ValueError that names the field.
    """

    deadline_seconds: float = option(600.0, "For a request, from its body to its last token.")
    body_seconds: float = option(30.0, "For a body to arrive.")
    header_seconds: float = option(10.0, "For the headers of a request to arrive.")
    send_seconds: float = option(60.0, "For a client to take what is sent.")
    patience_seconds: float = option(
        1.0,
        "How long a stream waits for its first token before it begins: what fails until then fails"
        " with a status.",
    )
    keepalive_seconds: float = option(
        10.0, "Between comments in a stream that has nothing to say yet."
    )
    idle_seconds: float = option(
        75.0,
        "How long a connection stays open between requests: longer than a balancer in front keeps"
        " it, or that one sends into closed ones.",
    )
    drain_seconds: float = option(30.0, "For requests under way when the server is told to stop.")
    hang_seconds: float = option(
        60.0,
        "How long any step of the model may take; ten times as long as the longest so far, if that"
        " is more. Then the server ends, and a replica is started anew.",
    )
    max_header_bytes: int = option(32 << 10, "Bytes of one request's headers.")
    max_buffered_bytes: int = option(256 << 20, "Bytes of all bodies and grammars together.")
    max_connections: int = option(1024, "Connections at a time.")
    max_requests_per_key: int = option(
        256,
        "Requests of one key that generate or measure at a time; the queue has fewer places.",
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                value = getattr(self, field.name)
                raise ValueError(f"{field.name} must be above 0, not {value!r}")
