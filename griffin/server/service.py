"""What the routes share: the model, the engine, the limits, who may ask, what is kept."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from functools import cached_property, partial
from typing import Any, TypeVar

import torch

from griffin.engine import Engine, Refused
from griffin.engine.shares import Queue
from griffin.engine.watchdog import Watchdog
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.bridge import Bridge, Job, Run
from griffin.server.errors import ApiError
from griffin.server.fleet.peers import Peers
from griffin.server.holding import Holding
from griffin.server.http.asgi import Gone
from griffin.server.http.body import Budget
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.http.hosts import Hosts
from griffin.server.http.keys import Keys
from griffin.server.limits import Limits
from griffin.server.metrics import Metrics
from griffin.server.protocol.bounds import check_most
from griffin.server.served import Served, called
from griffin.server.settings import Settings
from griffin.server.trim import find_trim
from griffin.server.warm_up import warm_up
from griffin.server.workers import Workers, asking
from griffin.sessions import Store

T = TypeVar("T")

log = logging.getLogger("griffin.server")
_TRIM_SECONDS = 1.0  # after a large request, and so often at most
_SMALL = 2048  # bytes of a body that is read on the loop; more costs others their milliseconds


class Service:
    """Everything behind the routes, as it answers with one of its models (`serving`).

    models:      what one engine serves, the first for those who name none; names: of them all.
    served:      the one that answers here; name: what the request calls it.
    engine:      of all models; `open` starts its thread.
    any_name:    any other name will do for the first.
    state_data:  states may come with requests, and go with answers.
    root_path:   what stands before every path, if a proxy leaves it there.
    store:       where sessions are kept; None keeps none.
    """

    def __init__(
        self,
        models: Sequence[Served],
        engine: Engine,
        *,
        any_name: bool = False,
        root_path: str = "",
        state_data: bool = False,
        version: str,
        limits: Limits | None = None,
        keys: Keys | None = None,
        hosts: Hosts | None = None,
        settings: Settings | None = None,
        store: Store | None = None,
    ) -> None:
        self.models = tuple(models)
        self.names = tuple(name for model in models for name in model.names)
        self.engine = engine
        self.any_name = any_name
        self._answer_with(self.models[0])
        self.root_path = root_path
        self.state_data = state_data
        self.version = version
        self.limits = limits or Limits(vocab_size=self.llm.tokenizer.vocab_size)
        self.llm.tokenizer.most_ids = self.limits.max_prompt_tokens
        self.keys = keys or Keys()
        self.hosts = hosts or Hosts()
        self.settings = settings or Settings()
        self.store = store
        self.metrics = Metrics(engine, version, *(model.name for model in self.models))
        self.bridge = Bridge(engine)
        self.watchdog = Watchdog(engine.pulse, self.settings.hang_seconds)
        self.budget = Budget(self.settings.max_buffered_bytes)
        self.created = int(time.time())
        self.started = time.monotonic()
        self.hung = False  # a step of the model did not end
        self.replica = ""  # the name of this process among several that serve the same
        self.peers: Peers | None = None  # those of them that it can ask
        self.holding = Holding()
        self._running: Counter[str] = Counter()
        # Of each, a namespace leaves one to the others.
        self._texts = Workers("text", 3)
        self._grammars = Workers("grammar", 2)
        self._disk = Workers("disk", 5)
        self._scorer = Workers("score", 2)
        self._trim, self._trimming = find_trim(), False
        self._measured = Queue(engine.max_waiting)

    def open(self) -> None:
        """Begin to work, on the running loop."""
        self.bridge.bind(asyncio.get_running_loop())
        self.engine.start()

    def warm_up(self) -> None:
        """Import and prepare what a first request needs, and learn how long a step may take."""
        expected = warm_up(self.llm, self.engine.chunk)
        self.watchdog = Watchdog(self.engine.pulse, self.settings.hang_seconds, expected)

    async def close(self) -> None:
        """End what is under way and let everything go."""
        self.draining = True
        self.abort("the server stopped")
        if not self.hung:
            await asyncio.get_running_loop().run_in_executor(None, self.engine.close)
        for workers in (self._texts, self._grammars, self._disk, self._scorer):
            workers.shutdown(wait=not self.hung)

    @cached_property
    def parameters(self) -> int:
        """How many the model has, however they are packed."""
        with torch.device("meta"):
            bare = type(self.llm.model)(self.llm.model.config)
        return sum(parameter.numel() for parameter in bare.parameters())

    @property
    def plain_template(self) -> bool:
        """Whether conversations are rendered in microseconds, by the built-in turns."""
        try:
            return self.llm.chat_format.native
        except ValueError:  # no chat model; that is said where it matters
            return True

    @property
    def draining(self) -> bool:
        """Whether no new work is taken; of every model."""
        return self.bridge.draining

    @draining.setter
    def draining(self, now: bool) -> None:
        self.bridge.draining = now

    @property
    def broken(self) -> bool:
        """Whether the engine has ended by itself, so that nothing is answered any more."""
        return bool(self.engine.closed) and not self.draining

    def check_steps(self) -> bool:
        """Look whether a step of the engine hangs; then end every answer, and take no more."""
        if not self.hung and self.watchdog.look(time.monotonic()):
            self.hung = True
            why = "the model hung, and this server ends; ask again"
            self.engine.refuse(why)
            for run in list(self.bridge.runs):
                run.give_up(why)
        return self.hung

    def abort(self, why: str) -> None:
        """End every request under way."""
        for run in list(self.bridge.runs):
            run.cancel(why)

    # What routes do.

    def check_ready(self) -> None:
        """Raise ApiError (503) where no new work is taken."""
        if self.draining:
            raise ApiError(
                errors.NOT_READY, "the server is shutting down; ask another", retry_after=2.0
            )

    async def body(
        self, exchange: Exchange, *, limits: Limits | None = None, media: str = "application/json"
    ) -> bytes:
        """Read a request's body. limits: the server's own if omitted. media: what it must be."""
        patience = self.settings.body_seconds
        return await exchange.body(limits or self.limits, self.budget, patience, media)

    async def think(self, size: int, do: Callable[[], T]) -> T:
        """Do some work on text: on the loop if its size is small, else beside it."""
        return do() if size <= _SMALL else await self._beside(self._texts, do)

    async def _beside(self, workers: Workers, do: Callable[[], T]) -> T:
        asker = asking.get()

        def wanted() -> T:
            if asker is not None and asker.gone:  # while it waited
                raise Gone
            return do()

        return await asyncio.wrap_future(workers.submit(wanted))

    def trim(self) -> None:
        """Give memory that a large request left behind back to the system, in a moment."""
        if self._trim is not None and not self._trimming:
            self._trimming = True
            asyncio.get_running_loop().call_later(_TRIM_SECONDS, self._trim_now, self._trim)

    def _trim_now(self, trim: Callable[[], object]) -> None:
        self._trimming = False
        self._texts.submit(trim, "")

    async def compile(self, do: Callable[[], T]) -> T:
        """Prepare a grammar, beside the loop and beside the texts. One of a key at a time.

        If a request is cancelled while it waits, that costs nothing. Work that has begun goes on to
        its end, and others of the same key wait.
        """
        return await self._beside(self._grammars, do)

    async def disk(self, do: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """Do something that waits for the disk, beside the loop, even if the client leaves.

        undo: is given what came of it, if nobody waits for that any more.
        """
        work = self._disk.submit(do)
        try:
            return await asyncio.shield(asyncio.wrap_future(work))
        except asyncio.CancelledError:
            if undo is not None:  # in the disk's thread: the loop may be ending
                work.add_done_callback(lambda done: done.exception() or undo(done.result()))
            raise

    async def score(self, exchange: Exchange, do: Callable[[threading.Event], T]) -> T:
        """Do a pass of the model beside the engine, one of a key at a time.

        `do` gets the word to stop: when the client leaves, or the request's time is over.
        """
        self.check_ready()
        namespace = exchange.namespace
        self._count(namespace)
        if not self._measured.enter(namespace, 1):
            self._uncount(namespace)
            raise ApiError(
                errors.QUEUE_FULL,
                f"{len(self._measured)} prompts wait to be measured; come back later",
                retry_after=1.0,
            )
        stop = threading.Event()
        exchange.on_gone(stop.set)
        try:
            async with asyncio.timeout(self.seconds_left(exchange)):
                return await asyncio.wrap_future(self._scorer.submit(lambda: do(stop)))
        except TimeoutError:
            raise ApiError(
                errors.TIMEOUT, "the prompt was not measured in time", retry=False
            ) from None
        finally:
            stop.set()
            self._measured.leave(namespace)
            self._uncount(namespace)

    def serving(self, exchange: Exchange, asked: str | None) -> Service:
        """Return this service as it answers a request with the model that it asks for.

        asked: one of the models' names; the first model where that is None. `name` is then what an
               answer calls the model: as the request did. ApiError (404) for a name that is not
               served.
        """
        served = called(self.models, asked, self.any_name)
        exchange.model = served.name
        view = self.with_model(served)
        view.name = asked or served.name
        return view

    def with_model(self, served: Served) -> Service:
        """Return this service as it answers with one of its models; nothing else is another's."""
        view = copy(self)
        view._answer_with(served)
        return view

    def head(self, prefix: str) -> p.Head:
        """Return how an answer begins. prefix: of its id."""
        return p.Head.new(prefix, self.name, self.system_fingerprint)

    def _answer_with(self, served: Served) -> None:
        self.served = served
        self.name = served.name
        self.llm = served.llm
        self.fingerprint = served.fingerprint
        self.system_fingerprint = served.mark

    def check_prompt(self, ids: Sequence[int], param: str) -> None:
        """Raise ApiError for a prompt over the limit."""
        if len(ids) > self.limits.max_prompt_tokens:
            raise ApiError(
                errors.TOO_LONG,
                f"the prompt has {len(ids)} tokens; this server accepts"
                f" {self.limits.max_prompt_tokens} (raise it with"
                f" {Limits.flag('max_prompt_tokens')})",
                param,
            )

    def check_scores(self, tokens: int, alternatives: int, param: str) -> None:
        """Raise ApiError for more log-probabilities, all of one request, than are kept for one."""
        count = tokens * (1 + alternatives)
        what = (
            f"{tokens} tokens with {alternatives} alternatives each are {count} log-probabilities"
        )
        check_most(count, what, self.limits, "max_scores", param)

    def text_ids(self, prompt: str | tuple[int, ...], param: str = "prompt") -> tuple[int, ...]:
        """Return a text's ids, BOS first, or ids as they are; ApiError for what is no text."""
        if not isinstance(prompt, str):
            return prompt
        try:
            return tuple(self.llm.tokenizer.encode(prompt))
        except ValueError as error:
            raise errors.of_value_error(error, param) from None

    def penalizes(self, sampling: dict[str, Any]) -> bool:
        """Return whether what was read before matters to the choice of tokens."""
        return "repetition_penalty" in sampling or self.llm.defaults.repetition_penalty != 1

    def seconds_left(self, exchange: Exchange) -> float:
        """Return what a request has left of its time; ApiError (504) if that is nothing."""
        left = self.settings.deadline_seconds - (time.perf_counter() - exchange.read_at)
        if left <= 0:
            raise ApiError(errors.TIMEOUT, "the request waited for its whole time", retry_after=2.0)
        return left

    async def start(
        self, exchange: Exchange, jobs: Sequence[Job], *, keep_state: bool = False
    ) -> Run:
        """Give prompts to the engine, or raise ApiError; the run ends when the client goes away.

        Call `finish` when it is over.
        """
        self.check_ready()
        exchange.check_here()
        run = Run(self.bridge, jobs)
        submit = partial(
            run.submit,
            namespace=exchange.namespace,
            deadline=self.seconds_left(exchange),
            keep_state=keep_state,
        )
        self._count(exchange.namespace)
        try:
            # A long prompt is checked id by id.
            await self.think(sum(len(job.request.context.pending) for job in jobs), submit)
            exchange.check_here()
        except BaseException as error:
            run.close()
            self._uncount(exchange.namespace)
            if isinstance(error, Refused):
                retry_after = 1.0 if error.retry else None
                raise errors.of_code(error.code, str(error), retry_after=retry_after) from None
            raise
        exchange.on_gone(run.cancel)
        return run

    def _count(self, namespace: str) -> None:
        """Count a request that generates or measures; ApiError (429) if its key has enough."""
        running, most = self._running[namespace], self.settings.max_requests_per_key
        if running >= most:
            raise ApiError(
                errors.TOO_MANY,
                f"{running} requests of this key are under way; {most} may",
                retry_after=1.0,
            )
        self._running[namespace] += 1

    def _uncount(self, namespace: str) -> None:
        self._running[namespace] -= 1
        if not self._running[namespace]:
            del self._running[namespace]

    def finish(self, exchange: Exchange, run: Run, source: str = "") -> None:
        """Count a run that is over. source: where it went on from; "" if it made no answers."""
        run.close()
        self._uncount(exchange.namespace)
        prompt = sum(ticket.prompt_tokens for ticket in run.tickets)
        cached = sum(ticket.cached_tokens or 0 for ticket in run.tickets)
        generated = sum(len(writer.events) for writer in run.writers)
        exchange.tokens = (prompt, cached, generated)
        metrics, model = self.metrics, self.served.name
        drafted = sum(ticket.drafted for ticket in run.tickets)
        accepted = sum(ticket.accepted for ticket in run.tickets)
        metrics.count(model, prompt, cached, generated, drafted, accepted)
        if source and generated:
            metrics.state_hits.labels(source).inc()
        for ticket in run.tickets:
            if ticket.queue_seconds is not None:
                metrics.queue.observe(ticket.queue_seconds)
        seconds = time.perf_counter() - run.started
        metrics.whole.observe(seconds)
        if exchange.gone:
            metrics.cancelled.inc()


Handler = Callable[[Service, Exchange], Awaitable[Reply | None]]  # who answers an operation
