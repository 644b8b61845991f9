"""What a `tokenizer.json` does to a text before it looks for pieces: bounded, or refused by name.

The tokenizers library runs whatever the file asks for. Four replacements of one letter by a
thousand make a terabyte of a letter, its regular expressions are matched by trying (one text can
keep some of them busy for years), and some steps panic. So only steps are taken whose growth is
known, and of the regular expressions those that no text can hold up.
"""

import re
from collections.abc import Mapping
from typing import Any

from griffin.foreign import shown

# Where `griffin train` cuts a text before it learns pieces: a line break with the indentation after
# it; one digit; a word, with the space or the dot before it; a run of signs, with the space before
# it; other white space. Indentation is a piece of its own, because that is what Python code repeats
# most.
PIECES = r"\r?\n(?:\r?\n)*[ \t]*|[ .]?[\p{L}\p{M}_]+|\p{N}|[ ]?[^\s\p{L}\p{M}\p{N}_]+|[ \t]+|\s"

MOST_GROWTH = 40  # bytes that a byte of text may become; NFKC and U+2581 for spaces make it 36
_MOST_ADDED = 4096  # bytes that steps may put to a text, whatever its length
_MOST_CHARACTERS = 200  # of a regular expression
_EXAMPLE = r"\d, \p{N}{1,3}, [ \t]+ or  ?\p{L}+"

# Bytes that a byte becomes at most, by the Unicode standard and the library's source.
_GROWTH = {
    "Strip": 1,
    "StripAccents": 1,
    "Nmt": 1,
    "Lowercase": 2,
    "NFC": 3,
    "NFD": 3,
    "NFKC": 12,
    "NFKD": 12,
    "ByteLevel": 2,
    "BertNormalizer": 6,
}
_CUTS = frozenset(
    {
        *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace"),
        *("Punctuation", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
    }
)
# Alternatives of a few items, of which none but the last repeats without bound: whatever the text,
# a match is decided in the steps it is long, and a place without one in a few.
_ITEM = (
    r"(?:\\[pP]\{\w{1,30}\}|\\[sSdDwWnrtf]|\\[^\w\s]|[^\\\[\](){}|*+?.^$]|\."
    r"|\[\^?(?:\\[pP]\{\w{1,30}\}|\\[sSdDwWnrtf]|\\[^\w\s]|[^\\\[\]&])+\])"
)
_ALTERNATIVE = rf"(?:{_ITEM}(?:\?|\{{\d\}})?){{0,3}}{_ITEM}(?:[?+*]|\{{\d(?:,\d?)?\}})?"
_SIMPLE = re.compile(f"{_ALTERNATIVE}(?:\\|{_ALTERNATIVE})*")


def check_steps(spec: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the step, unless normalizer and pre_tokenizer are safe to run."""
    growth, added = _growth(spec.get("normalizer"))
    if growth > MOST_GROWTH or added > _MOST_ADDED:
        raise ValueError(
            f"its normalizer makes up to {growth:.0f} bytes of one, and {added:.0f} more; at most"
            f" {MOST_GROWTH} of one and {_MOST_ADDED} more are taken"
        )
    _check_cut(spec.get("pre_tokenizer"))


def _growth(step: Any) -> tuple[float, float]:
    """Return how many bytes a byte becomes at most, and how many are added to a text."""
    if step is None:
        return 1, 0
    kind = _kind(step, "normalizer")
    if kind == "Sequence":
        growth, added = 1.0, 0.0
        for inner in _list(step.get("normalizers"), "normalizers"):
            more, further = _growth(inner)
            growth, added = growth * more, added * more + further
        return growth, added
    if kind == "Prepend":
        return 1, _bytes(step.get("prepend"))
    if kind == "Replace":
        content = _bytes(step.get("content"))
        kind, pattern = _pattern(step, "Replace")
        # A regular expression may match one byte, or none between any two.
        return (
            (max(1, content / _bytes(pattern)), 0) if kind == "String" else (1 + content, content)
        )
    if kind not in _GROWTH:
        known = ", ".join(sorted({*_GROWTH, "Prepend", "Replace", "Sequence"}))
        raise ValueError(f"its normalizer has a step {shown(kind)}; those that are run: {known}")
    return _GROWTH[kind], 0


def _check_cut(step: Any) -> None:
    if step is None:
        return
    kind = _kind(step, "pre_tokenizer")
    if kind == "Sequence":
        for inner in _list(step.get("pretokenizers"), "pretokenizers"):
            _check_cut(inner)
    elif kind == "Split":
        _pattern(step, "Split")
    elif kind not in _CUTS:
        known = ", ".join(sorted({*_CUTS, "Sequence", "Split"}))
        raise ValueError(f"its pre_tokenizer has a step {shown(kind)}; those that are run: {known}")


def _pattern(step: Mapping[str, Any], name: str) -> tuple[str, str]:
    match step.get("pattern"):
        case {"String": str(text)} if text:
            return "String", text
        case {"Regex": str(text)} if text == PIECES or (
            len(text) <= _MOST_CHARACTERS and _SIMPLE.fullmatch(text)
        ):
            return "Regex", text
        case {"Regex": str(text)}:
            raise ValueError(
                f"a step {name} has the regular expression {shown(text)}, which a text might keep"
                f" busy without end; one item that repeats, at an alternative's end, is taken:"
                f" {_EXAMPLE}, and what griffin train writes"
            )
        case pattern:
            raise ValueError(f"a step {name} has the pattern {shown(pattern)}; expected a text")


def _kind(step: Any, name: str) -> str:
    kind = step.get("type") if isinstance(step, dict) else None
    if not isinstance(kind, str):
        raise ValueError(f"its {name} must be an object with a type, not {shown(step)}")
    return kind


def _list(steps: Any, name: str) -> list[Any]:
    if not isinstance(steps, list):
        raise ValueError(f"{name} must be a list, not {shown(steps)}")
    return steps


def _bytes(text: Any) -> int:
    if not isinstance(text, str):
        raise ValueError(f"a step of its normalizer has {shown(text)} where a text belongs")
    return len(text.encode("utf-8", "surrogatepass"))
