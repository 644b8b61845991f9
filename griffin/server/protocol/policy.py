"""What becomes of fields: USED are those of the Structs, IGNORED change nothing, REFUSED would be
missed.

A field in none of them is passed over, and the response names it in `x-griffin-ignored`. Places
inside a body are written like "messages[].audio". A refused field is let through where its value
asks for nothing: null, and what `harmless` lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """Why a field is refused, and with which values it is not."""

    why: str
    harmless: tuple[Any, ...] = ()

    def is_harmless(self, value: Any) -> bool:
        """Return whether this value asks for nothing. True is not taken for 1, nor false for 0."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return any(value == other for other in self.harmless if not isinstance(other, bool))
        return any(type(value) is type(other) and value == other for other in self.harmless)


class Policy(NamedTuple):
    """What one endpoint does with the fields that its Struct does not have."""

    ignored: frozenset[str]
    refused: Mapping[str, Refusal]


TEXT_ONLY = Refusal("this model reads and writes text only")


# Who asks, what it is billed as, how it is cached elsewhere: nothing that a token depends on.
HARMLESS = frozenset(
    {
        *("user", "safety_identifier", "service_tier", "access_programs"),
        *("prompt_cache_options", "prompt_cache_retention"),
    }
)
STREAMING = frozenset({"stream_options.include_obfuscation"})

# Options of other servers that this one does not have, and that an answer would show the lack of.
VENDORS = {
    "length_penalty": Refusal("there is no beam search", (1,)),
    "use_beam_search": Refusal("there is no beam search", (False,)),
    "repeat_penalty": Refusal("call it repetition_penalty", (1,)),
    "typical_p": Refusal("use top_p, top_k or min_p", (1,)),
    "tfs_z": Refusal("use top_p, top_k or min_p", (1,)),
    "top_a": Refusal("use top_p, top_k or min_p", (0,)),
    "mirostat": Refusal("use top_p, top_k or min_p", (0,)),
    "xtc_probability": Refusal("use top_p, top_k or min_p", (0,)),
    "dry_multiplier": Refusal("use repetition_penalty or frequency_penalty", (0,)),
    "bad_words": Refusal("use logit_bias with -100", ([],)),
    "logits_processors": Refusal("use logit_bias", ([],)),
    "prompt_embeds": Refusal("this server reads text and token ids"),
    "include_stop_str_in_output": Refusal("a stop string is never part of the answer", (False,)),
    "skip_special_tokens": Refusal("control tokens are never part of an answer's text", (True,)),
    "structured_outputs.structural_tag": Refusal("use tools, or structured_outputs.grammar"),
    "chat_template": Refusal("the server renders conversations with the model's own template"),
    "documents": Refusal("put documents into a message"),
    "moderation": Refusal("this server moderates nothing"),
}

# A state that travels with a request, where it cannot.
_CARRIED = "use /v1/chat/completions; or PUT it to /v1/states/NAME/data, and name it in state"
CARRIED = {"state_data": Refusal(_CARRIED), "return_state": Refusal(_CARRIED, (False,))}

# Of the messages of a chat, wherever they are read.
MESSAGES = {
    "messages[].audio": TEXT_ONLY,
    "messages[].function_call": Refusal("use tool_calls, and answer with the role tool"),
    "messages[].content[].image_url": TEXT_ONLY,
    "messages[].content[].input_audio": TEXT_ONLY,
    "messages[].content[].video_url": TEXT_ONLY,
    "messages[].content[].file": TEXT_ONLY,
    "messages[].tool_calls[].custom": Refusal("only functions can be called"),
}

# Our own endpoints: what they do not know is named, and nothing of it is refused.
OWN = Policy(
    ignored=frozenset({"messages[].annotations", "messages[].tool_calls[].index"}),
    refused=MESSAGES | {"chat_template": VENDORS["chat_template"]},
)
