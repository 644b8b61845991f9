"""Files beside a tokenizer that answer a question twice, and not alike.

Which of them counts is decided where they are read: tokenizer.json before tokenizer.model, and
chat_template.jinja before tokenizer_config.json (as in transformers) before the map of special
tokens. Fine-tunes leave the older file behind, so a difference is no error; but it is said.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffin.foreign import is_there, read_bytes, read_object, shown
from griffin.text.tokenizer import Tokenizer

_MOST_MODEL = 64 << 20  # bytes of a tokenizer.model: Gemma's is 4 MB
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_TEMPLATES = ("chat_template.jinja", *_CONFIGS, "chat_template.json")


def two_answers(tokenizer: Tokenizer) -> list[str]:
    """Return a sentence for every question that the files beside a tokenizer answer twice.

    Costs a tenth of a second where both of Gemma's tokenizer files are there.
    """
    folder = tokenizer.path.parent
    configs: dict[str, dict[str, Any]] = {
        name: read_object(folder / name)
        for name in (*_CONFIGS, "chat_template.json")
        if is_there(folder / name)
    }
    notes: list[str] = []
    model = folder / "tokenizer.model"
    both = tokenizer.path.suffix == ".json" and is_there(model)
    if both and (where := _difference(tokenizer, model)):
        notes.append(f"{tokenizer.path} is read; {model.name} beside it is another: {where}")
    templates = {
        name: text
        for name in _TEMPLATES
        if (text := _template(folder, name, configs.get(name))) is not None
    }
    # transformers gives a tokenizer no template of chat_template.json, and nor do we.
    read = next((name for name in templates if name != "chat_template.json"), None)
    others = [name for name, text in templates.items() if text != templates.get(read or "")]
    if others:
        notes.append(
            f"{folder} has a chat template in {read or 'no file that is read'}; another, which is"
            f" not read, in {', '.join(others)}"
        )
    if len(configs.keys() & {*_CONFIGS}) == 2:
        first, second = (configs[name] for name in _CONFIGS)
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            one, other = _piece(first.get(key)), _piece(second.get(key))
            if None not in (one, other) and one != other:
                notes.append(
                    f"{folder}: {key} is {shown(one)} in {_CONFIGS[0]}, which counts, and"
                    f" {shown(other)} in {_CONFIGS[1]}"
                )
    return notes


def _template(folder: Path, name: str, config: dict[str, Any] | None) -> str | None:
    if name.endswith(".jinja"):
        path = folder / name
        return read_bytes(path).decode("utf-8", "replace") if is_there(path) else None
    found = None if config is None else config.get("chat_template")
    if isinstance(found, list):
        named = [e for e in found if isinstance(e, dict) and e.get("name") == "default"]
        found = named[0].get("template") if named else None
    return found if isinstance(found, str) else None


def _piece(value: object) -> object:
    return value.get("content") if isinstance(value, dict) else value


def _difference(tokenizer: Tokenizer, model: Path) -> str:
    """Return where a tokenizer.model means something else by an id; nothing if nowhere.

    What the tokenizer has beyond the model's ids was added to it, and is no difference.
    """
    try:
        pieces = list(_pieces(read_bytes(model, _MOST_MODEL)))
    except (ValueError, IndexError):
        return "it is no sentencepiece model"
    own = tokenizer.vocabulary.pieces
    if len(pieces) > len(own):
        return f"it has {len(pieces)} pieces, the other {len(own)}"
    for number, (piece, mine) in enumerate(zip(pieces, own, strict=False)):
        # Converters write the byte 9 as a tabulator.
        if piece != mine and not (piece == "<0x09>" and mine == "\t"):
            return f"id {number} is {shown(piece)} there, {shown(mine)} here"
    return ""


def _pieces(content: bytes) -> Iterator[str]:
    """Yield the pieces of a sentencepiece model, which are its first fields; IndexError or
    ValueError for what is none. A plain loop over its fields would take a second of Gemma's."""
    at = 0
    while at < len(content) and content[at] == 0x0A:
        size, at = content[at + 1], at + 2
        if size > 0x7F:
            size, at = (size & 0x7F) | content[at] << 7, at + 1
        if content[at] != 0x0A or at + size > len(content):
            raise ValueError("the piece is not the first field of its entry")
        length, start = content[at + 1], at + 2
        if length > 0x7F:
            length, start = (length & 0x7F) | content[start] << 7, start + 1
        yield content[start : start + length].decode("utf-8")
        at += size
    if at == 0:
        raise ValueError("there are no pieces")
