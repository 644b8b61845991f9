"""The process of `python -m benchmarks serve`: one engine, asked by a call and through the server
before it.

    python -m benchmarks.served

It is spoken to as `griffin.bench.worker` is. The weights, the slots and the engine's thread are the
same both ways, so what differs is the server.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from typing import Any

import torch

from griffin.bench.memory import forget_peak, resident
from griffin.bench.ours import format_of, load_options
from griffin.bench.worker import LOWEST_ID, answer_requests
from griffin.engine import Context, End, Engine, Event, Request
from griffin.llm import LLM
from griffin.loading import load
from griffin.sampling import SamplingParams
from griffin.server.build import build
from griffin.server.http.sockets import bound
from griffin.server.run import Server


class Served:
    """Carry out requests on an engine by itself, while its server waits for others."""

    def __init__(self) -> None:
        self._llm: LLM | None = None
        self._engine: Engine | None = None
        self._texts: list[str] = []
        self._prompts: list[list[int]] = []

    def start(
        self,
        model: str,
        tokenizer: str | None,
        format: str,
        threads: int,
        slots: int,
        waiting: int,
        chunk: int,
    ) -> dict[str, Any]:
        """Load a model and serve it on a free port; return what it is and where.

        waiting: requests that may wait for a slot.
        """
        torch.set_num_threads(threads)
        how: dict[str, Any] = load_options(format)
        self._llm = llm = load(model, tokenizer=tokenizer, device="cpu", **how)
        service = build(
            llm, name="bench", slots=slots, chunk=chunk, max_waiting=waiting, cache_bytes=0
        )
        self._engine = service.engine
        up = threading.Event()
        server = Server(service, bound("127.0.0.1", 0, None), announce=lambda _where: up.set())
        threading.Thread(target=server.run, daemon=True).start()
        if not up.wait(60):
            raise OSError("the server did not start")
        host, port = server.address
        return {"host": host, "port": port, "format": format_of(llm.model)}

    def prompts(self, count: int, length: int, seed: int) -> dict[str, Any]:
        """Make texts of about so many tokens, none the beginning of another; return them.

        Also returns the most tokens that one has, and what keeps an answer from ending by itself.
        """
        assert self._llm is not None
        tokenizer, chance = self._llm.tokenizer, random.Random(seed)
        ids = range(LOWEST_ID, tokenizer.vocab_size)
        self._texts = [tokenizer.decode(chance.choices(ids, k=length)) for _ in range(count)]
        self._prompts = [list(tokenizer.encode(text)) for text in self._texts]
        bias = {str(id): -100.0 for id in self._llm.stop_ids}
        return {"texts": self._texts, "tokens": max(map(len, self._prompts)), "bias": bias}

    def alone(self, clients: int, tokens: int) -> dict[str, Any]:
        """Answer all prompts by the engine, so many at a time; return the seconds of each and of
        all.

        first: from submitting to the first token. rest: from there to the last.
        """
        over: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        waiting = list(reversed(self._prompts))
        asked: list[_Asked] = []

        def submit() -> None:
            asked.append(_Asked(over))
            self._submit(waiting.pop(), tokens, asked[-1])

        begun = time.perf_counter()
        for _ in range(min(clients, len(waiting))):
            submit()
        for _ in self._prompts:
            over.get().check(tokens)
            if waiting:
                submit()
        seconds = time.perf_counter() - begun
        return {
            "first": [one.first - one.begun for one in asked],
            "rest": [one.last - one.first for one in asked],
            "seconds": seconds,
        }

    def memory(self, forget: bool = False) -> dict[str, int]:
        """Return the process's memory; `forget`: its peak begins anew."""
        found = resident()
        if forget:
            forget_peak()
        return found

    def _submit(self, ids: list[int], tokens: int, sink: _Asked) -> None:
        assert self._llm is not None and self._engine is not None
        params = SamplingParams(
            max_tokens=tokens, seed=1, logit_bias={id: -100.0 for id in self._llm.stop_ids}
        )
        request = Request(
            context=Context().then(ids),
            params=params,
            stop_ids=self._llm.stop_ids,
            vocab_size=self._llm.tokenizer.vocab_size,
        )
        sink.begun = time.perf_counter()
        self._engine.submit(request, sink=sink)


class _Asked:
    """When the tokens of one answer came."""

    def __init__(self, over: queue.SimpleQueue[_Asked]) -> None:
        self.begun = self.first = self.last = 0.0
        self._over = over
        self._count = 0
        self._error: BaseException | None = None

    def __call__(self, event: Event | End) -> None:
        self.last = time.perf_counter()
        if isinstance(event, End):
            self._error = event.error or RuntimeError(event.finish_reason)
        elif self._count == 0:
            self.first = self.last
        self._count += 1
        if event.finish_reason is not None:
            self._over.put(self)

    def check(self, tokens: int) -> None:
        """Raise what went wrong, if anything did."""
        if self._error is not None:
            raise self._error
        if self._count != tokens:
            raise RuntimeError(
                f"the engine gave {self._count} tokens where {tokens} were asked for"
            )


if __name__ == "__main__":
    answer_requests(Served())
