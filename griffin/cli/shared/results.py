"""What an answer tells about itself: a line for people, plain values for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from griffin.answer import Result
    from griffin.llm import LLM


def statistics(result: Result) -> str:
    """Return a line for people about how an answer went."""
    return (
        f"{result.prompt_tokens:,} tokens in, {result.generated_tokens:,} out"
        f" ({result.finish_reason}); first after {result.first_seconds:.2f} s, then"
        f" {result.decode_tokens_per_second:,.1f} tokens/s; seed {result.seed}"
    )


def result_dict(result: Result, llm: LLM) -> dict[str, Any]:
    """Return a result as plain values for JSON."""

    def token(id: int, logprob: float) -> dict[str, Any]:
        return {"id": id, "text": llm.tokenizer.token_text(id), "logprob": logprob}

    out: dict[str, Any] = {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "stop": result.stop,
        "ids": list(result.ids),
        "logprobs": list(result.logprobs),
        "prompt_tokens": result.prompt_tokens,
        "generated_tokens": result.generated_tokens,
        "first_seconds": result.first_seconds,
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "seed": result.seed,
        "model": llm.name,
    }
    if any(result.alternatives):
        out["alternatives"] = [[token(*pair) for pair in row] for row in result.alternatives]
    return out


def answer_dict(question: str, result: Result, shared: int, model: str) -> dict[str, Any]:
    """Return a question and its answer as plain values for JSON.

    cached_tokens are those of the text that were read once for all questions; the seconds do not
    count them.
    """
    return {
        "question": question,
        "answer": result.text,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "cached_tokens": shared,
        "generated_tokens": result.generated_tokens,
        "first_seconds": result.first_seconds,
        "seconds": result.seconds,
        "seed": result.seed,
        "model": model,
    }
