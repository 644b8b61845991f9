"""A chat in turns: text on one side, a session on the other.

talk = Conversation(llm, begin(llm, store, "kitchen"))
for piece in talk.say("Why is the sky blue?"):
    print(piece, end="")
talk.undo()
"""

from griffin.conversation.compare import Difference, compare
from griffin.conversation.conversation import Conversation, begin
from griffin.conversation.fingerprint import fingerprint_of
from griffin.conversation.turns import EXCHANGE, join_exchange, split_exchange

__all__ = [
    "EXCHANGE",
    "Conversation",
    "Difference",
    "begin",
    "compare",
    "fingerprint_of",
    "join_exchange",
    "split_exchange",
]
