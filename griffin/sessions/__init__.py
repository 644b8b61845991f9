"""Conversations that outlive a process: ids and states, an index, undo, forks, state files.

store = Store(folder)
with store.create("kitchen", fingerprint=fingerprint, config=model.config) as session:
    session.commit(role="user", ids=ids, state=state, pending=ids[-1:], text="...")
with store.open("kitchen", fingerprint) as session:
    context = session.resume()      # the state before its last token, and that token
"""

from griffin.sessions.draft import Draft
from griffin.sessions.errors import (
    InvalidName,
    SessionBusy,
    SessionError,
    SessionExists,
    StateMismatch,
    StateTorn,
    StorageFull,
    UnknownItem,
    UnknownSession,
    UnknownTurn,
)
from griffin.sessions.fingerprint import Fingerprint, config_digest, json_digest
from griffin.sessions.items import Item
from griffin.sessions.names import check_name, unfinished_name
from griffin.sessions.session import Session
from griffin.sessions.session_info import SessionInfo, StoreUsage
from griffin.sessions.state_file import (
    load_state_file,
    read_state_info,
    save_state_file,
    unpack_state,
)
from griffin.sessions.state_info import StateInfo, TurnRecord
from griffin.sessions.store import Store
from griffin.sessions.tokens import NOTHING, extend_chain
from griffin.sessions.turn import Branch, Turn

__all__ = [
    "NOTHING",
    "Branch",
    "Draft",
    "Fingerprint",
    "InvalidName",
    "Item",
    "Session",
    "SessionBusy",
    "SessionError",
    "SessionExists",
    "SessionInfo",
    "StateInfo",
    "StateMismatch",
    "StateTorn",
    "StorageFull",
    "Store",
    "StoreUsage",
    "Turn",
    "TurnRecord",
    "UnknownItem",
    "UnknownSession",
    "UnknownTurn",
    "check_name",
    "config_digest",
    "extend_chain",
    "json_digest",
    "load_state_file",
    "read_state_info",
    "save_state_file",
    "unfinished_name",
    "unpack_state",
]
