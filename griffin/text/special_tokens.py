"""The small files beside a tokenizer: special tokens, and the checkpoint's chat template."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = ("bos", "eos", "pad", "unk")


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """What the files beside a tokenizer say.

    names: role ("bos", "eos", "pad", "unk") -> the piece; only the roles a file names.
    extra: further pieces that are control tokens. chat_template: Jinja source, if the checkpoint
           has one.
    """

    names: dict[str, str]
    extra: frozenset[str]
    chat_template: str | None


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Read special_tokens_map.json, tokenizer_config.json and chat_template.jinja in `folder`; all
    optional.

    tokenizer_config.json has the last word on names, chat_template.jinja on the template, as in
    transformers. Raises ValueError naming the file that cannot be read.
    """
    names: dict[str, str] = {}
    extra: set[str] = set()
    template: str | None = None
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / file
        if not path.is_file():
            continue
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
        for role in ROLES:
            piece = _piece(content.get(f"{role}_token"))
            if piece is not None:
                names[role] = piece
        for key in (
            "additional_special_tokens",
            "extra_special_tokens",
            "model_specific_special_tokens",
        ):
            extra.update(_pieces(content.get(key)))
        decoder = content.get("added_tokens_decoder")
        if isinstance(decoder, dict):
            entries = [
                entry
                for entry in decoder.values()
                if isinstance(entry, dict) and entry.get("special")
            ]
            extra.update(_pieces(entries))
        template = _template(content.get("chat_template"), path) or template
    path = folder / "chat_template.jinja"
    if path.is_file():
        template = read_text(path)
    return SpecialTokens(names=names, extra=frozenset(extra), chat_template=template)


def read_text(path: Path) -> str:
    """Read a UTF-8 file; ValueError naming it if that fails."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not a UTF-8 file (byte {error.start}); fetch it again"
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file; ValueError naming it, and the place, if it is torn or not JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not valid JSON, perhaps cut off ({error}); fetch it again"
        ) from error


def _piece(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _pieces(value: object) -> Iterable[str]:
    entries = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return [piece for entry in entries if (piece := _piece(entry)) is not None]


def _template(value: object, path: Path) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        # Several named templates; "default" is the one for plain chat.
        for entry in value:
            if isinstance(entry, dict) and entry.get("name") == "default":
                return _template(entry.get("template"), path)
        return None
    raise ValueError(
        f"{path}: chat_template must be a string or a list, found {type(value).__name__}"
    )
