"""A chat in turns: text on one side, a session on the other.

talk = Conversation(llm, store.create("kitchen", fingerprint=fingerprint_of(llm),
config=llm.model.config)) for piece in talk.say("Why is the sky blue?"):
    print(piece, end="")
talk.undo()
"""

from griffin.conversation.compare import Difference, compare
from griffin.conversation.conversation import Conversation, new_thread
from griffin.conversation.exchange import EXCHANGE, join_exchange, split_exchange
from griffin.conversation.fingerprint import fingerprint_of

__all__ = [
    "EXCHANGE",
    "Conversation",
    "Difference",
    "compare",
    "fingerprint_of",
    "join_exchange",
    "new_thread",
    "split_exchange",
]
