"""How well a model predicts texts, by how far into them it has read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin.engine.request import check_ids
from griffin.engine.score import hidden_pieces, target_logprobs
from griffin.llm import LLM


@dataclass(kw_only=True)
class PositionSpan:
    """What was predicted at the positions from `begin` to before `end`.

    Positions count the tokens before: the first of a text, after BOS, stands at 1.
    nats: the sum of -log p; bytes: of the tokens' own texts, of which control tokens have none.
    """

    begin: int
    end: int
    tokens: int = 0
    bytes: int = 0
    nats: float = 0.0

    @property
    def bits_per_byte(self) -> float:
        """Bits that a byte of text costs; nan where nothing was predicted."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan

    @property
    def nats_per_token(self) -> float:
        """The loss that training reports; nan where nothing was predicted."""
        return self.nats / self.tokens if self.tokens else math.nan


def measure_positions(
    llm: LLM,
    texts: Iterable[str | Sequence[int]],
    edges: Sequence[int],
    *,
    advance: Callable[[int], object] = lambda tokens: None,
) -> list[PositionSpan]:
    """Read texts from end to end, each with a state of its own, and sum what they cost by position.

    texts:   strings, to which BOS is prepended, or ids, which are taken as given.
    edges:   where spans begin, increasing and positive; the last goes on to the end. Of what stands
             before the first nothing is counted.
    advance: called with the tokens of each piece after it was read.
    Returns a span for each edge. Raises ValueError for edges that do not increase.
    """
    if not edges or edges[0] < 1 or list(edges) != sorted(set(edges)):
        raise ValueError(f"edges are positive and increase, unlike {list(edges)}")
    ends = [*edges[1:], 0]
    spans = [PositionSpan(begin=begin, end=end) for begin, end in zip(edges, ends, strict=True)]
    longest, text_of, control = 0, llm.tokenizer.token_bytes, llm.tokenizer.vocabulary.control_ids
    for text in texts:
        ids = llm.tokenizer.encode(text) if isinstance(text, str) else list(text)
        if len(ids) < 2:
            continue
        nats = -_scored(llm, ids, advance).double()
        sizes = torch.tensor([0 if id in control else len(text_of(id)) for id in ids[1:]])
        longest = max(longest, len(ids))
        for span in spans:
            part = slice(span.begin - 1, span.end - 1 if span.end else None)
            span.tokens += len(nats[part])
            span.bytes += int(sizes[part].sum())
            span.nats += float(nats[part].sum())
    spans[-1].end = max(longest, spans[-1].begin)
    return [span for span in spans if span.tokens]


def _scored(llm: LLM, ids: Sequence[int], advance: Callable[[int], object]) -> Tensor:
    """Return what `score` does of a text, told piece by piece."""
    model = llm.model
    check_ids(ids, model.config.vocab_size, "the text")
    begins = llm.beginning and llm.beginning.for_ids(ids)
    found = torch.empty(len(ids) - 1)
    with torch.no_grad():
        for start, hidden in hidden_pieces(model, ids, adapter=llm.adapter, begins=begins):
            end = start + len(hidden)
            wanted = torch.tensor(ids[start + 1 : end + 1], device=model.device)
            found[start:end] = target_logprobs(model, hidden, wanted)
            advance(len(hidden))
    advance(1)  # the last one is not read
    return found


def doublings(longest: int, first: int = 256) -> list[int]:
    """Return edges 1, 256, 512, ... that begin before `longest`: each span twice the last."""
    edges = [1]
    while (next_ := first << (len(edges) - 1)) < longest:
        edges.append(next_)
    return edges


def streams(texts: Iterable[Sequence[int]], length: int) -> Iterator[list[int]]:
    """Join texts' ids into pieces of exactly `length`, for measures beyond the single text.

    Each text keeps its BOS, as where documents are packed for training, but the model is not told
    where one ends: it reads on. What does not fill a last piece is left out.
    """
    piece: list[int] = []
    for ids in texts:
        piece += ids
        while len(piece) >= length:
            yield piece[:length]
            piece = piece[length:]
