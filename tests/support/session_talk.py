"""Talking with a served session, and what a conversation in memory answers to the same."""

from __future__ import annotations

from griffin.conversation import Conversation
from tests.support.live_server import NAME


def say(live, content, *, session=None, before=(), **fields):
    """Say something; return the answer's text and the x-griffin-state header."""
    extra = {} if session is None else {"session_id": session}
    raw = live.openai().chat.completions.with_raw_response.create(
        model=NAME,
        messages=[*before, {"role": "user", "content": content}],
        extra_body=extra,
        **{"max_tokens": 6, "seed": 1} | fields,
    )
    return raw.parse().choices[0].message.content, raw.headers["x-griffin-state"]


def talk(llm, *messages, max_tokens=6):
    """Return what a conversation in memory answers."""
    from griffin.conversation import begin

    conversation = Conversation(
        llm, begin(llm, None), sampling={"max_tokens": max_tokens, "seed": 1}
    )
    return ["".join(conversation.say(message)) for message in messages]


def both(said, answers):
    roles = ("user", "assistant")
    pairs = zip(said, answers, strict=True)
    return [
        {"role": r, "content": text} for pair in pairs for r, text in zip(roles, pair, strict=True)
    ]
