"""How much a request may ask for: one frozen object, each field an option of `griffin serve`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

N = TypeVar("N", int, float)


def option(default: N, help: str) -> N:
    """Return a field that is an option of `griffin serve`, with its help."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bound every count and length that comes from outside, each a whole number above 0.

    What a field bounds its `option` says. vocab_size: every token id is below it; a server sets it
    from its tokenizer. Raises ValueError that names the field.
    """

    max_body_bytes: int = option(8 << 20, "Bytes of a JSON body; more is a 413.")
    max_json_values: int = option(
        5 << 18,
        "Values in a body's JSON, lists and objects counted four times: what bounds the memory that"
        " a small body can ask for.",
    )
    max_messages: int = option(4096, "Messages of a chat, items of a response's input.")
    max_choices: int = option(16, "`n` of a request; as many as --slots, if these are fewer.")
    max_prompts: int = option(64, "Prompts of one /v1/completions call.")
    max_inputs: int = option(2048, "Texts of one /v1/embeddings call.")
    max_vectors: int = option(
        1 << 22, "Numbers in the vectors of one /v1/embeddings call: texts times dimensions."
    )
    max_rows: int = option(128, "Prompts times `n`.")
    max_prompt_tokens: int = option(1 << 20, "Ids of a prompt, given as such or made of text.")
    max_tokens: int = option(32_768, "The most tokens a request may generate.")
    default_max_tokens: int = option(
        1024, "What a chat or response generates that does not say; at most --max-tokens."
    )
    max_stop: int = option(16, "Stop strings.")
    max_stop_chars: int = option(256, "Characters of a stop string.")
    max_stop_ids: int = option(64, "Entries of `stop_token_ids`.")
    max_logprobs: int = option(20, "Alternatives beside each token.")
    max_scores: int = option(
        1 << 20,
        "Log-probabilities of a request: tokens (of answers at their longest and of echoed prompts)"
        " times one and the alternatives of each.",
    )
    max_logit_bias: int = option(1024, "Entries of `logit_bias`, and of `allowed_token_ids`.")
    max_tools: int = option(128, "Functions offered to the model.")
    max_schema_bytes: int = option(1 << 16, "Bytes of one JSON schema.")
    max_schema_depth: int = option(32, "Levels of one JSON schema.")
    max_grammar_bytes: int = option(
        1 << 18, "Bytes of all JSON schemas of a request together, of tools and of its format."
    )
    max_state_bytes: int = option(
        32 << 20, "Bytes of a state that is sent, where --allow-state-data lets one be."
    )
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

    def with_state(self) -> Limits:
        """Return these for a body that holds a state, in base64, beside what any may hold."""
        room = 4 * -(-self.max_state_bytes // 3)
        return dataclasses.replace(self, max_body_bytes=self.max_body_bytes + room)

    def of_octets(self) -> Limits:
        """Return these for a body that is a state."""
        return dataclasses.replace(self, max_body_bytes=self.max_state_bytes)

    @staticmethod
    def flag(name: str) -> str:
        """Return the option of `griffin serve` that sets a field: max_stop -> --max-stop."""
        return "--" + name.replace("_", "-")
