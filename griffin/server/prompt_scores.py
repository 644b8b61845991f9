"""`prompt_logprobs`: what the model makes of the tokens of prompts, as vLLM tells it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import chain

import msgspec

from griffin.server.http.exchange import Exchange
from griffin.server.measuring import Turns
from griffin.server.protocol.reply import clamp, encode
from griffin.server.protocol.telling import PromptLogprob
from griffin.server.scoring import TokenScore, score_prompt
from griffin.server.service import Service


async def prompt_logprobs(
    service: Service,
    exchange: Exchange,
    prompts: Sequence[Sequence[int]],
    alternatives: int,
    times: int = 1,
) -> list[msgspec.Raw]:
    """Return the PromptLogprobs of each prompt as JSON; ApiError for more than a request may have.

    alternatives: how many of the most probable ids to tell beside a prompt's own. times: how often
                  the answer holds each.
    """
    tokens = sum(map(len, prompts)) * times
    service.check_scores(tokens, alternatives, "prompt_logprobs")

    def written(stop: threading.Event) -> list[msgspec.Raw]:
        return [_written(service, ids, alternatives, stop) for ids in prompts]

    return await service.score(exchange, written)


def _written(
    service: Service, ids: Sequence[int], alternatives: int, stop: threading.Event
) -> msgspec.Raw:
    turns, left, parts = Turns(service.engine, stop), iter(ids), list[bytes]()
    for scores in score_prompt(service.llm, ids, alternatives, stop, ranks=True):
        parts += [
            encode(None if score is None else _entry(service, id, score))
            for score, id in zip(scores, left, strict=False)
        ]
        turns.rest()
    return msgspec.Raw(b"[%s]" % b",".join(parts))


def _entry(service: Service, id: int, score: TokenScore) -> dict[str, PromptLogprob]:
    others = ((i, rank, value) for rank, (i, value) in enumerate(score.alternatives, 1))
    name = service.llm.tokenizer.token_text
    return {
        str(i): PromptLogprob(logprob=clamp(value), rank=rank, decoded_token=name(i))
        for i, rank, value in chain([(id, score.rank, score.logprob)], others)
    }
