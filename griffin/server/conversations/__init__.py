"""Which conversation an answer goes on with, and where it is kept.

If a request names nothing, its own messages are the whole conversation. If it names a session, a
conversation or an earlier response, it goes on from there (`Held`). A hint only says where its
beginning may already be stored (`Hinted`).
docs/serving.md, "Where a request goes on", has the rule.
"""

from griffin.server.conversations.asked import Asked
from griffin.server.conversations.entry import carry, rendered, take_up, unknown_response
from griffin.server.conversations.thread import Held, Hinted, Thread

__all__ = ["Asked", "Held", "Hinted", "Thread", "carry", "rendered", "take_up", "unknown_response"]
