"""What a request says of its conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from griffin.conversation.turns import Said, joined
from griffin.server import protocol as p
from griffin.server.protocol import Message, Tool
from griffin.server.protocol.items import PlainItem
from griffin.server.tool_text import as_text, described


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request says of its conversation.

    messages:     all of it, or what is new.
    tools:        that may be called; None if it does not say.
    instructions: system text of this request alone, before the conversation's; of /v1/responses.
    param:        the field that holds the messages.
    penalty:      the choice of tokens depends on what was read.
    size:         bytes of the body.
    items:        the messages as they are to be kept, with ids; none where clients know no items.
    whole:        the messages are the whole conversation, whatever the session holds.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] | None
    instructions: str | None = None
    param: str = "messages"
    penalty: bool = False
    size: int = 0
    items: Sequence[PlainItem] = ()
    whole: bool = False

    def said(self, *, first: bool = True, begun: bool = False) -> tuple[str | None, list[Said]]:
        """Return the system text, None if there is none, and what was said.

        first, begun: as `protocol.turns` has them.
        """
        plain = p.turns(as_text(self.messages), first=first, begun=begun)
        system = plain.pop(0)["content"] if plain[0]["role"] == "system" else None
        return system, [(one["role"], one["content"]) for one in plain]  # pyright: ignore[reportReturnType]


def words_of(tools: Sequence[Tool], *texts: str | None) -> str | None:
    """Return what stands before a conversation's first message: the tools, then the texts."""
    return joined(described(tools) if tools else None, *texts)


def settings_of(system: str | None, tools: Sequence[Tool]) -> dict[str, Any]:
    """Return what a session keeps of that, for requests that leave it out."""
    return {
        "system": system or None,
        "tools": [asdict(tool) for tool in tools],
        "tools_text": described(tools) if tools else None,
    }
