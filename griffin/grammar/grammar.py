"""A grammar as it is written down: a value that knows no tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Between the parts of JSON: nothing, a space, or a line break with an indent. Without a bound a
# model that has lost its way may write spaces for ever, and every one of them would be allowed.
_BLANK = r"( |\n {0,32})"


@dataclass(frozen=True)
class Grammar:
    """What an answer may be. Make one with json_schema, json_object, regex, choice, ebnf or lark.

    kind, text: how llguidance reads it. name: what messages call it.
    """

    kind: Literal["json", "regex", "lark", "ebnf"]
    text: str
    name: str = "the grammar"

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, *, lenient: bool = False) -> Grammar:
        """Allow the JSON of a schema (draft 2020-12), properties in the schema's order.

        An object with `properties` has no others, unless its schema says of `additionalProperties`
        which.
        lenient: pass over what cannot be held to, such as `not` and `uniqueItems`; what was is in
                 `CompiledGrammar.passed`. Otherwise it is refused when it is compiled.
        Raises ValueError for what is no schema.
        """
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        if not isinstance(schema, Mapping):
            raise ValueError(f"a JSON schema is an object, not {schema!r}")
        return cls("json", json_source(schema, lenient=lenient), "the JSON schema")

    @classmethod
    def json_object(cls) -> Grammar:
        """Allow any JSON object."""
        return cls("json", json_source({"type": "object"}), "the JSON object")

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Allow what a regular expression matches as a whole; no look-around, no back-references.

        Raises ValueError for what is no pattern.
        """
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f"a regular expression is a string that is not empty, not {pattern!r}")
        return cls("regex", pattern, "the regular expression")

    @classmethod
    def choice(cls, *choices: str) -> Grammar:
        """Allow exactly one of some texts. Raises ValueError for none, or for what is no text."""
        if not choices:
            raise ValueError("a choice needs at least one text")
        for text in choices:
            if not isinstance(text, str) or not text:
                raise ValueError(f"a choice is between texts that are not empty, not {text!r}")
        return cls("regex", "|".join(map(_exactly, choices)), "the choice")

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Allow what a grammar in llguidance's dialect of Lark derives from `start`."""
        if not isinstance(text, str) or not text.strip():
            raise ValueError("a Lark grammar is a text with a rule `start`")
        return cls("lark", text)

    @classmethod
    def ebnf(cls, text: str) -> Grammar:
        """Allow what rules derive, written in either way that programs send: llguidance's Lark,
        from `start`, or GBNF (`root ::= ...`), which is llama.cpp's and vLLM's.

        Schemas in it (`%json {...}`) are held to as that of `json_schema`. Raises ValueError for
        what is no text.
        """
        return cls("ebnf", cls.lark(text).text)


def json_source(schema: Mapping[str, Any], *, lenient: bool = False) -> str:
    """Return a schema's JSON with our options, as it stands alone and after `%json` in Lark.

    lenient: pass over keywords that cannot be held to, instead of refusing them.
    Raises ValueError for what JSON cannot hold.
    """
    options = {
        "item_separator": ",",
        "key_separator": ":",
        "whitespace_pattern": _BLANK,
        "lenient": lenient,
    }
    try:
        return json.dumps({**schema, "x-guidance": options}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a JSON schema holds only what JSON does ({error})") from None


def quoted(text: str) -> str:
    """Return a text as a Lark grammar writes it: printable characters, quotes, line breaks."""
    return json.dumps(text, ensure_ascii=False)


def _exactly(text: str) -> str:
    """Return a regular expression for one text."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
