"""The small files beside a tokenizer: special tokens, and the checkpoint's chat template."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from griffin.foreign import is_there, read_bytes, read_object, shown

# Bytes of one of these files: a vocabulary's added tokens are listed in them once more.
_MOST = 16 << 20

ROLES = ("bos", "eos", "pad", "unk")
FURTHER_ROLES = ("sep", "cls", "mask")  # which only templates use


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """What the files beside a tokenizer say.

    names: role ("bos", "eos", "pad", "unk", "sep", "cls", "mask") -> the piece; only the roles a
           file names.
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
        if not is_there(path):
            continue
        content = read_object(path, _MOST)
        for role in (*ROLES, *FURTHER_ROLES):
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
    if is_there(path):
        try:
            template = read_bytes(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 (byte {error.start})") from None
    return SpecialTokens(names=names, extra=frozenset(extra), chat_template=template)


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
        f"{path}: chat_template must be a string or a list of named ones, not {shown(value)}"
    )
