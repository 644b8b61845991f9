"""The one place where text, tokens, engine and checkpoint meet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, cast, overload

import torch

from griffin.answer import Piece, Result, Score, Stream, Writer
from griffin.document import Document
from griffin.engine import (
    Beginning,
    Context,
    Pooling,
    Request,
    Seen,
    check_ids,
    embed,
    generate,
    read,
    score,
)
from griffin.grammar import CompiledGrammar, Grammar, Grammars
from griffin.model import Griffin, TunedState
from griffin.model.packed import rounded_format
from griffin.prompt import Prompt, context_of, is_one, plain
from griffin.sampling import SamplingParams
from griffin.text import Chat, Message, Tokenizer

__all__ = ["LLM", "Piece", "Result", "Score", "Stream"]


class LLM:
    """A model with its tokenizer: text in, text out. `griffin.load` makes one.

    model:     the Griffin.
    tokenizer: its Tokenizer.
    defaults:  SamplingParams where a call does not say otherwise, from generation_config.json.
    chat_defaults: the same for `griffin chat` and the chat page; as `defaults` if omitted.
    stop_ids:  ids that end every answer: EOS, `<end_of_turn>`, and what generation_config.json
               adds.
    name:      what it was loaded from. adapter: the name of the model's adapter that reads and
               answers, its first if it has some; "" is none (`using` takes another).
    tuned:     the tuned state that stands for BOS in every text that is read; None is none.
    weights:   gives a digest of the weights' files, for `weights_digest`; None where there are
               none.
    caution:   what to know before talking with it, where it is a toy or no chat model; else "".
    Raises ValueError if the tokenizer has more ids than the model has embeddings.
    """

    def __init__(
        self,
        model: Griffin,
        tokenizer: Tokenizer,
        *,
        defaults: SamplingParams | None = None,
        chat_defaults: SamplingParams | None = None,
        stop_ids: Iterable[int] = (),
        name: str = "",
        weights: Callable[[], str] | None = None,
        tuned: TunedState | None = None,
    ) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model only"
                f" {model.config.vocab_size} embeddings; {tokenizer.path} belongs to another model"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.defaults = defaults or SamplingParams()
        self.chat_defaults = chat_defaults or self.defaults
        self.name = name
        self.caution = ""
        self.adapter = next(iter(model.adapters.names), "")
        self._weights = weights
        self.tuned = tuned
        self.beginning: Beginning | None = None
        if tuned is not None:
            tuned.check(model.config, self.weights_digest, self.adapter_digest)
            self.beginning = Beginning.of(tuned, tokenizer.bos_id, model.dtype, model.device)
        own = {tokenizer.eos_id, tokenizer.end_of_turn_id} - {None}
        self.stop_ids = frozenset(stop_ids) | cast(set[int], own)

    def __repr__(self) -> str:
        """Show what it is: name, format of the weights, bytes in memory, device."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        format = rounded_format(self.model) or str(self.model.dtype).removeprefix("torch.")
        size = sum(tensor.nbytes for tensor in tensors)
        return f"LLM({self.name!r}, {format}, {size / 1e9:,.3f} GB on {self.model.device})"

    def using(self, adapter: str) -> LLM:
        """Return the same model as it reads and answers with another of its adapters, "" for none.

        Nothing is loaded or copied. Raises ValueError for an adapter that it does not have, and
        for one that its tuned state was not learnt with.
        """
        self.model.adapters.index(adapter)
        other = copy(self)
        other.adapter = adapter
        if self.tuned is not None:
            self.tuned.check(self.model.config, self.weights_digest, other.adapter_digest)
        return other

    @property
    def adapter_digest(self) -> str:
        """A digest of the adapter that reads and answers; "" without one."""
        adapters = self.model.adapters
        return adapters.digest(adapters.index(self.adapter))

    @cached_property
    def chat_format(self) -> Chat:
        """The way conversations become ids; ValueError if this is no chat model."""
        return Chat(self.tokenizer)

    @property
    def talks(self) -> bool:
        """Whether it was tuned to talk: it brings a chat template, or is called ...-it."""
        return self.tokenizer.chat_template is not None or self.name.endswith("-it")

    @cached_property
    def grammars(self) -> Grammars:
        """Grammars in this tokenizer's ids."""
        return Grammars(self.tokenizer)

    @cached_property
    def weights_digest(self) -> str:
        """A digest of the weights: of their files, or of the tensors if there are none.

        Taken when it is first asked for: about a second for gigabytes.
        """
        if self._weights is not None:
            return self._weights()
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def params(self, **sampling: Any) -> SamplingParams:
        """Return the defaults with changes; a wrong name or value is a ValueError that names it."""
        return self.defaults.replace(**sampling)

    @overload
    def generate(
        self, prompt: Prompt, *, grammar: Grammar | None = None, **sampling: Any
    ) -> Result: ...
    @overload
    def generate(
        self, prompt: Sequence[Prompt], *, grammar: Grammar | None = None, **sampling: Any
    ) -> list[Result]: ...
    def generate(
        self, prompt: Prompt | Sequence[Prompt], *, grammar: Grammar | None = None, **sampling: Any
    ) -> Result | list[Result]:
        """Continue a prompt, or several together.

        prompt:   a string (BOS is put before it), a list, an array or a tensor of ids (taken as
                  they are), a Context, or a list of these. `sampling` holds fields of
                  SamplingParams; a seed counts for each prompt alone.
        grammar:  what an answer must look like, such as Grammar.json_schema({...}) or
                  Grammar.choice("yes", "no"); one that max_tokens cuts short is only the beginning
                  of that.
        Returns a Result for one prompt and a list of them for a list, in its order. A prompt gets
        the same answer alone and in company. Raises ValueError for an empty prompt, for ids the
        model lacks and for a grammar that cannot be held to.
        """
        prompt = plain(prompt)
        single = is_one(prompt)
        prompts = [cast(Prompt, prompt)] if single else list(cast(Sequence[Prompt], prompt))
        pieces = self.stream_all(prompts, grammar=grammar, **sampling)
        results = {which: result for which, _, result in pieces if result is not None}
        return results[0] if single else [results[which] for which in range(len(prompts))]

    def stream(
        self,
        prompt: Prompt,
        *,
        chat: bool = False,
        grammar: Grammar | CompiledGrammar | None = None,
        progress: Callable[[int, int], object] | None = None,
        **sampling: Any,
    ) -> Stream:
        """Continue a prompt and give each piece of text as soon as it is final.

        Returns an iterator of pieces with `.text`; after the last, its `.result` is what `generate`
        returns and its `.context` goes on from there. `progress` is called while the prompt is
        read, with its tokens read so far and all that are to be read. Other arguments and errors
        as for `generate`.
        """
        request = self.request(prompt, chat=chat, grammar=grammar, **sampling)
        generation = generate(self.model, [request], keep_states=True, progress=progress)
        writer = Writer(self.tokenizer, request)
        return Stream(generation, writer, request.context.tokens)

    def stream_all(
        self,
        prompts: Sequence[Prompt],
        *,
        chat: bool = False,
        grammar: Grammar | None = None,
        **sampling: Any,
    ) -> Iterator[tuple[int, Piece, Result | None]]:
        """Continue several prompts together; give the pieces of all answers as they come.

        Yields which prompt, counted from 0, a piece of its answer, and its result if that was the
        last piece. Each prompt gets the answer that it gets alone. Arguments and errors as for
        `generate`.
        """
        how: dict[str, Any] = {"chat": chat, "grammar": grammar, **sampling}
        requests = [self.request(prompt, **how) for prompt in prompts]
        generation = generate(self.model, requests)
        writers = [Writer(self.tokenizer, request) for request in requests]
        for event in generation:
            which, writer = event.index, writers[event.index]
            piece = writer.take(event)
            assert piece is not None, "a cancelled row is silent"
            if writer.ended and event.finish_reason is None:
                generation.cancel(which)  # a stop string, of which the engine knows nothing
            tokens, seed = requests[which].context.tokens, generation.seeds[which]
            yield which, piece, writer.result(tokens, seed) if writer.ended else None

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        grammar: Grammar | None = None,
        **sampling: Any,
    ) -> Result:
        """Answer a conversation, messages such as {"role": "user", "content": "..."}.

        A string is one message of the user's. An assistant's message at the end is how the answer
        begins; the result holds what follows it, and a grammar counts for both together.
        """
        stream = self.stream_chat(messages, grammar=grammar, **sampling)
        for _ in stream:
            pass
        return stream.result

    def stream_chat(
        self,
        messages: str | Sequence[Message],
        *,
        grammar: Grammar | None = None,
        progress: Callable[[int, int], object] | None = None,
        **sampling: Any,
    ) -> Stream:
        """Answer a conversation as `stream` does a prompt."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        ids = self.chat_format.ids(messages)
        form: Grammar | CompiledGrammar | None = grammar
        if grammar is not None and (begun := self.chat_format.begun(messages)):
            form = self.grammars.compile(grammar).after(begun)
        return self.stream(ids, chat=True, grammar=form, progress=progress, **sampling)

    def request(
        self,
        prompt: Prompt,
        *,
        chat: bool = False,
        grammar: Grammar | CompiledGrammar | None = None,
        prediction: str = "",
        **sampling: Any,
    ) -> Request:
        """Return what an engine is asked, for programs that run one of their own.

        chat: the answer is a turn, and ends with it. prediction: what it will probably say. All
        else as for `generate`. What a penalty has to know of the tokens before is looked up now.
        """
        params, context = self.params(**sampling), context_of(prompt, self.tokenizer)
        if self.beginning is not None:
            context = self.beginning.before(context)
        if params.repetition_penalty != 1:
            context = replace(context, seen=Seen(context.seen.marks(self.model.config.vocab_size)))
        stop_ids = self.stop_ids | self.chat_format.stop_ids if chat else self.stop_ids
        compiled = self.grammars.compile(grammar) if isinstance(grammar, Grammar) else grammar
        return Request(
            context=context,
            params=params,
            stop_ids=stop_ids,
            vocab_size=self.tokenizer.vocab_size,
            constraint=None if compiled is None else partial(compiled.constraint, stop_ids),
            adapter=self.adapter,
            prediction=tuple(self.tokenizer.encode(prediction, bos=False)),
        )

    def read(
        self,
        pieces: Iterable[Sequence[int]],
        context: Context | None = None,
        *,
        progress: Callable[[int], object] | None = None,
        chunk: int | None = None,
    ) -> Context:
        """Read ids that come in pieces, in constant memory; return where they led.

        The last id stays pending, so that the result can be continued. `progress` is called with
        the number of tokens read now and then. Raises ValueError if there are none.
        """
        before = (context or Context()).to(self.model.device)
        vocab_size = self.model.config.vocab_size
        seen = torch.zeros(vocab_size, dtype=torch.bool)
        held, total = list(before.pending), before.read
        source = iter(pieces)
        begins = self.beginning is not None and before.state is None
        while len(held) < 2 + begins and (piece := next(source, None)) is not None:
            held.extend(piece)
        check_ids(held, vocab_size)
        if self.beginning is not None and begins:
            if len(held) < 3:  # what stands for the first id is there when an answer is asked for
                return Context().then(held)
            before = self.beginning.before(Context().then(held))
            held, total = list(before.pending), before.read

        def feed() -> Iterator[Sequence[int]]:
            nonlocal held, total
            for piece in chain(((),), source):  # first what is held already
                held = [*held, *piece]
                if len(held) > 1:
                    check_ids(held, vocab_size)
                    seen[held[:-1]] = True
                    total += len(held) - 1
                    yield held[:-1]
                    held = held[-1:]

        state = before.state
        if len(held) > 1:
            how: dict[str, Any] = {"chunk": chunk, "progress": progress}
            state, _ = read(self.model, feed(), state, adapter=self.adapter, **how)
        return Context(
            state=state, pending=(held[-1],), seen=before.seen.then(seen), tokens=total + 1
        )

    def document(
        self,
        text: str | Iterable[str] = (),
        *,
        chat: bool | None = None,
        hold: bool = True,
        progress: Callable[[int], object] | None = None,
    ) -> Document:
        """Read a text of any length once, in constant memory, to ask about it again and again.

        text: a string or blocks of any size, such as an open file, which gives its lines; more may
              follow with `Document.read`.
        The other arguments, and the errors, are those of Document.
        """
        document = Document(self, chat=chat, hold=hold, progress=progress)
        document.read(text)
        return document

    @overload
    def score(self, texts: str) -> Score: ...
    @overload
    def score(self, texts: Sequence[int]) -> Score: ...
    @overload
    def score(
        self, texts: list[str] | tuple[str, ...] | Sequence[Sequence[int]]
    ) -> list[Score]: ...
    def score(
        self, texts: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
    ) -> Score | list[Score]:
        """Return the log-probability of every token of a text, or of each of several.

        Returns a Score for one text, a list of them for a list. Texts begin with BOS; ids are taken
        as given. Raises ValueError for an empty text and for ids the model lacks.
        """
        texts = plain(texts)
        if is_one(texts):
            ids = context_of(cast(Prompt, texts), self.tokenizer).pending
            begins = self.beginning and self.beginning.for_ids(ids)
            scores = score(self.model, ids, adapter=self.adapter, begins=begins)
            return Score(ids=ids[1:], logprobs=tuple(scores.tolist()))
        return [self.score(cast(str, text)) for text in texts]

    def embed(
        self,
        texts: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]],
        pooling: Pooling = "mean",
    ) -> torch.Tensor:
        """Return a vector of length 1 for a text, or for each of several.

        It is the mean of the trunk's hidden states over the text, or the last one. The model is no
        trained embedder: it was trained to go on with texts and not to compare them.
        Returns (D,) float32 for one text, (n, D) for a list; texts and errors as for `score`.
        """
        texts = plain(texts)
        single = is_one(texts)
        each = [texts] if single else list(texts)
        if any(isinstance(text, Context) for text in each):
            raise ValueError("a Context has been read already; give the text, or its ids")
        ids = [context_of(cast(Prompt, text), self.tokenizer).pending for text in each]
        vectors = embed(self.model, ids, pooling, adapter=self.adapter)
        return vectors[0] if single else vectors
