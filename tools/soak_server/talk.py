"""A session as its client knows it, held against what the disk has and what the model says
alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from griffin.conversation import Conversation, begin, split_exchange
from griffin.llm import LLM
from griffin.sessions import Store, Turn, UnknownSession


@dataclass
class Said:
    """A message, how it was to be answered, and what was heard of the answer; whole: its end,
    too."""

    message: str
    sampling: dict[str, Any]
    heard: str = ""
    whole: bool = False


@dataclass
class Talk:
    """A session. said: all messages on the way to where it stands. made: the server has told of
    it."""

    name: str
    said: list[Said] = field(default_factory=list)
    made: bool = False

    def fork(self, name: str) -> Talk:
        return Talk(name, list(self.said))

    def check(self, store: Store, llm: LLM) -> int:
        """Compare with the disk and with a conversation in memory; return how many answers that
        were.

        What a client saw the end of must be there. What it heard a part of may be there, as it was
        kept; it goes on from there as anybody would.
        """
        conversation = Conversation(llm, begin(llm, None))
        kept = list(self.kept(store))
        for said, turn in kept:
            for name, value in said.sampling.items():
                conversation.set(name, value)
            answer = split_exchange(turn.text or "")[1]
            count = turn.stats["generated_tokens"]
            saying = conversation.say(said.message)
            alone = "".join(islice(saying, count))
            saying.close()
            result = conversation.result
            assert result is not None and len(result.ids) == count, (self.name, said, turn.stats)
            # Bytes that are not a character yet are shown when an answer is cut there.
            assert result.text == answer and answer.startswith(alone), (
                self.name,
                said,
                answer,
                result.text,
            )
            assert not said.whole or result.finish_reason in ("stop", "length"), (
                self.name,
                said,
                result,
            )
        assert [turn.tokens for _, turn in kept[-1:]] == [conversation.tokens][: len(kept)], (
            self.name
        )
        return len(kept)

    def kept(self, store: Store) -> list[tuple[Said, Turn]]:
        """Return what was said that the disk has, beside its turns; AssertionError if anything is
        lost."""
        try:
            turns = {turn.number: turn for turn in store.turns(self.name)}
            number = store.show(self.name).head
        except UnknownSession:
            assert not self.made and not any(said.whole for said in self.said), (
                f"{self.name} is lost"
            )
            return []
        line: list[Turn] = []
        while number is not None:
            line.append(turns[number])
            number = turns[number].parent
        line.reverse()
        found: list[tuple[Said, Turn]] = []
        for said in self.said:
            turn = line[len(found)] if len(found) < len(line) else None
            message, answer = split_exchange(turn.text or "") if turn is not None else ("", "")
            if turn is None or message != said.message:
                assert not said.whole, f"{self.name} has lost {said}"
                continue
            ok = (
                answer == said.heard
                if said.whole
                else answer.startswith(said.heard.rstrip("\ufffd"))
            )
            assert ok, f"{self.name} has {answer!r} where {said} was told"
            found.append((said, turn))
        assert len(found) == len(line), (
            f"{self.name} has turns that nobody said: {line[len(found) :]}"
        )
        return found
