"""A long conversation in a worker, and how soon an answer to one more message begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy

from griffin.bench.ours import Ours
from griffin.engine import Context, End, Engine, PrefixCache, Request
from griffin.model import State
from griffin.sampling import SamplingParams
from griffin.sessions import Fingerprint, Store, config_digest

_NAME = "talk"
_CACHE_BYTES = 256 << 20  # what a server's prefix cache may take unless it is told otherwise
_FIRST = SamplingParams(temperature=0, max_tokens=1)


class Talk:
    """A conversation of random ids, kept in a store and in a prefix cache, and follow-ups to it.

    folder: of the store; the conversation is there after `begin`, for this process and others.
    """

    def __init__(self, program: Ours, folder: Path) -> None:
        self._program = program
        model = program.griffin
        config, dtype = model.config, str(model.dtype).removeprefix("torch.")
        # Weights are those of this run; nobody else will open the store.
        self._mark = Fingerprint(
            config=config_digest(config),
            weights="a benchmark's",
            dtype=dtype,
            quantization=program.format,
        )
        self._cache = PrefixCache(self._mark.digest, config, model.dtype, max_bytes=_CACHE_BYTES)
        self._store = Store(folder)
        self._ids: list[int] = []
        self._engine: Engine | None = None

    def begin(self, tokens: int, read: int) -> dict[str, float]:
        """Read a conversation of so many tokens and keep it; return how long each part took.

        read: how many of them the model reads at least, and a window of them. Of the rest nothing
              is read: the state is moved to where they would end, by whole turns of its ring. It
                       means nothing then,
              and costs the same.
        """
        config = self._program.griffin.config
        turn = config.attention_window_size if "attention" in config.block_types else 1
        read = min(tokens, max(read, turn))
        read += (tokens - read) % turn
        self._ids = self._random(0, tokens)
        begun = time.perf_counter()
        state, last = self._first(Context().then(self._ids[:read]))
        took = time.perf_counter() - begun
        if read < tokens:
            state = State(state.pos + (tokens - read), state.layers)
            self._cache.put(self._ids, state)
        with self._store.create(_NAME, fingerprint=self._mark, config=config) as session:
            session.commit(role="exchange", ids=[*self._ids, last], state=state, pending=[last])
        self._ids.append(last)
        return {"seconds": took, "tokens": read}

    def by_cache(self, count: int, seed: int) -> tuple[float, int]:
        """Answer `count` more tokens after a conversation of which the prefix cache knows most.

        Returns the seconds to the first token, and that token. RuntimeError if the cache knew less
        than all but the conversation's last.
        """
        prompt = Context().then([*self._ids, *self._random(seed, count)])
        begun = time.perf_counter()
        _, token = self._first(prompt, len(self._ids) - 1)
        return time.perf_counter() - begun, token

    def by_session(self, count: int, seed: int) -> tuple[float, int]:
        """Open the kept conversation and answer another `count` tokens: the seconds to the first,
        and it."""
        ids = self._random(seed, count)
        begun = time.perf_counter()
        with self._store.open(_NAME, self._mark) as session:
            _, token = self._first(session.resume().then(ids))
        return time.perf_counter() - begun, token

    def _first(self, prompt: Context, known: int | None = None) -> tuple[State, int]:
        """Wait for the first token after a prompt; return the state before it and the token.

        known: tokens that the prefix cache has to spare.
        """
        if self._engine is None:
            model, chunk = self._program.griffin, self._program.chunk
            self._engine = Engine(model, 1, kept=0, chunk=chunk, prefix_cache=self._cache).start()
        ticket = self._engine.submit(Request(context=prompt, params=_FIRST), keep_state=True)
        event = next(ticket.events())
        if isinstance(event, End):
            raise event.error or RuntimeError(f"the request ended: {event.finish_reason}")
        if known is not None and ticket.cached_tokens != known:
            raise RuntimeError(
                f"the prefix cache spared {ticket.cached_tokens} tokens of {known}"
                f" ({ticket.cache_reason})"
            )
        assert ticket.context is not None and ticket.context.state is not None
        return ticket.context.state, event.id

    def _random(self, seed: int, count: int) -> list[int]:
        chance: Sequence[int] = (seed, count)
        return (
            numpy.random.default_rng(chance)
            .integers(10, self._program.vocabulary(), count)
            .tolist()
        )
