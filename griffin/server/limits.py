"""How much a request may ask for: one frozen object, its names the flags of `griffin serve`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bound every count and length that comes from outside. Each field is a whole number of at
    least 1.

    max_body_bytes       of a JSON body; more is a 413.
    max_json_values      values in a body's JSON, lists and objects counted four times: what bounds
    the memory
                         that a small body can ask for.
    max_messages         messages of a chat, items of a response's input.
    max_choices          `n`.
    max_prompts          prompts of one /v1/completions call.
    max_rows             prompts times `n`.
    max_prompt_tokens    ids of a prompt, given as such or (the server counts) made of text.
    max_tokens           the most a request may generate.
    default_max_tokens   what a chat or response generates that does not say; at most `max_tokens`.
    max_stop             stop strings. max_stop_chars: characters of one.
    max_stop_ids         entries of `stop_token_ids`.
    max_logprobs         alternatives beside each token.
    max_logit_bias       entries of `logit_bias`.
    max_tools            functions offered to the model.
    max_schema_bytes     of one JSON schema. max_schema_depth: levels in it.
    vocab_size           every token id is below it. A server sets it from its tokenizer.

    Raises ValueError that names the field.
    """

    max_body_bytes: int = 8 << 20
    max_json_values: int = 5 << 18
    max_messages: int = 4096
    max_choices: int = 16
    max_prompts: int = 64
    max_rows: int = 128
    max_prompt_tokens: int = 1 << 20
    max_tokens: int = 32_768
    default_max_tokens: int = 1024
    max_stop: int = 16
    max_stop_chars: int = 256
    max_stop_ids: int = 64
    max_logprobs: int = 20
    max_logit_bias: int = 1024
    max_tools: int = 128
    max_schema_bytes: int = 1 << 16
    max_schema_depth: int = 32
    vocab_size: int = 1 << 31

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 62:
                raise ValueError(
                    f"{field.name} must be a whole number of at least 1, not {value!r}"
                )
        if self.default_max_tokens > self.max_tokens:
            raise ValueError(
                f"default_max_tokens={self.default_max_tokens} is more than"
                f" max_tokens={self.max_tokens}"
            )

    @staticmethod
    def flag(name: str) -> str:
        """Return the option of `griffin serve` that sets a field: max_stop -> --max-stop."""
        return "--" + name.replace("_", "-")
