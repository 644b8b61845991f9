"""Which conversation an answer goes on with, and where it is kept.

A request that names nothing is all there is. One that names a session, a conversation or an earlier
response goes on from there (`Held`). A hint only says where a stored beginning may lie (`Hinted`).
docs/serving.md, "Where a request goes on", has the rule.
"""

from griffin.server.conversations.asked import Asked
from griffin.server.conversations.entry import take_up, unknown_response
from griffin.server.conversations.thread import Held, Hinted, Thread

__all__ = ["Asked", "Held", "Hinted", "Thread", "take_up", "unknown_response"]
