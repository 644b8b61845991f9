"""`tokenizer.json`, through the tokenizers library."""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from griffin.text.special_tokens import SpecialTokens, read_json
from griffin.text.vocabulary import CONTROL_NAMES, SPACE, Vocabulary, check_count

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MAX_VOCABULARY = 1 << 24
_LONG = 1 << 11  # characters; a shorter text takes less than handing it to another thread


def open_tokenizer_json(
    path: Path, special: SpecialTokens
) -> tuple[Vocabulary, Callable[..., list[int]], dict[str, str]]:
    """Read a BPE `tokenizer.json`.

    Returns the vocabulary, a function from text to ids that can give no control id (nor a byte
    piece's id for its written form, "<0x41>"), and the roles the file itself tells ({"unk": ...}).
    Raises ValueError, naming the file and the entry, for anything that is not such a file.

    How the guarantee is made: in the copy that goes to the library, each control token is renamed,
    in the vocabulary and among the added tokens, to a random name of 128 bits that nobody can type,
    and every merge that would build or use one is left out. Ids and sizes stay as they are.
    """
    spec = read_json(path)
    model = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{path}: not a BPE tokenizer.json (no model with a vocabulary in it)")
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("merges"), list):
        raise ValueError(f"{path}: holds a {model.get('type')} model; Griffin's tokenizers are BPE")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ValueError(
            f"{path}: its pieces carry word prefixes or suffixes; Griffin's tokenizers have none"
        )

    if model.get("byte_fallback") and model.get("ignore_merges"):
        # Then a typed "<0x41>" would be found whole and read back as "A".
        raise ValueError(
            f"{path}: has both byte_fallback and ignore_merges; set ignore_merges to false"
        )

    vocab: dict[str, int] = model["vocab"]
    added = _added_tokens(spec.get("added_tokens") or [], path)
    pieces = _pieces_by_id(vocab, added, path)
    known = set(CONTROL_NAMES | special.extra | set(special.names.values()))
    known.update(entry["content"] for entry in added if entry.get("special"))
    unk = model.get("unk_token")
    if unk is not None:
        known.add(unk)
    control = {id for id, piece in enumerate(pieces) if piece in known}
    byte_values: dict[int, int] = {}
    if model.get("byte_fallback"):
        for piece, id in vocab.items():
            if match := _BYTE_PIECE.fullmatch(piece):
                byte_values[id] = int(match[1], 16)
    vocabulary = Vocabulary(
        pieces, frozenset(control), byte_values, marked_spaces=_unmarks_spaces(spec.get("decoder"))
    )

    aliases = {name: f"<{secrets.token_hex(16)}>" for name in vocabulary.control}
    model["vocab"] = {aliases.get(piece, piece): id for piece, id in vocab.items()}
    byte_pieces = {piece for id in byte_values if (piece := pieces[id]) is not None}
    model["merges"] = _safe_merges(model["merges"], aliases, byte_pieces, path)
    if unk is not None:
        model["unk_token"] = aliases.get(unk, unk)
    model["dropout"] = None
    spec["added_tokens"] = [
        {**entry, "content": aliases.get(entry["content"], entry["content"])} for entry in added
    ]
    spec.update(post_processor=None, truncation=None, padding=None)  # BOS is our own business
    renamed = spec["added_tokens"]
    content = json.dumps(spec)
    spec.clear()  # 200 MB of small objects for Gemma's vocabulary
    try:
        library = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exception for every defect of the file
        raise ValueError(f"{path}: the tokenizers library refuses it ({error})") from error
    for entry in renamed:
        if library.token_to_id(entry["content"]) != entry["id"]:
            raise ValueError(
                f"{path}: added token with id {entry['id']} does not get that id; ids have a hole"
            )

    def encode(text: str, most: int | None = None) -> list[int]:
        if len(text) < _LONG:
            found = library.encode(text, add_special_tokens=False)
            check_count(len(found), most)
            return found.ids
        # The same ids; but `encode` stops every other thread, for seconds where the text is long.
        found = library.encode_batch_fast([text], add_special_tokens=False)[0]
        check_count(len(found), most)
        return found.ids

    return vocabulary, encode, {"unk": unk} if unk is not None else {}


def _unmarks_spaces(decoder: Any) -> bool:
    """Tell whether the file's decoder turns U+2581 into a space."""
    if not isinstance(decoder, dict):
        return False
    if decoder.get("type") == "Sequence":
        return any(map(_unmarks_spaces, decoder.get("decoders") or []))
    return decoder.get("type") == "Replace" and decoder.get("pattern") == {"String": SPACE}


def _added_tokens(entries: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(entries, list):
        raise ValueError(f"{path}: added_tokens must be a list, found {type(entries).__name__}")
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("content"), str)
            or type(entry.get("id")) is not int
        ):
            raise ValueError(
                f"{path}: an added token needs an integer id and a string content, found {entry}"
            )
    return entries


def _pieces_by_id(
    vocab: Mapping[str, Any], added: list[dict[str, Any]], path: Path
) -> list[str | None]:
    meanings = [*vocab.items(), *((entry["content"], entry["id"]) for entry in added)]
    for piece, id in meanings:
        if type(id) is not int or not 0 <= id < _MAX_VOCABULARY:
            raise ValueError(
                f"{path}: id of {piece!r} is {id!r}; allowed are 0 to {_MAX_VOCABULARY - 1}"
            )
    pieces: list[str | None] = [None] * (max((id for _, id in meanings), default=-1) + 1)
    for piece, id in meanings:
        if pieces[id] not in (None, piece):
            raise ValueError(f"{path}: id {id} belongs to both {pieces[id]!r} and {piece!r}")
        pieces[id] = piece
    return pieces


def _safe_merges(
    merges: list[Any], control: Mapping[str, str], byte_pieces: set[str], path: Path
) -> list[Any]:
    kept: list[Any] = []
    for merge in merges:
        # Two spellings: "left right" in older files, ["left", "right"] in newer ones.
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(half, str) for half in pair)
        ):
            raise ValueError(f"{path}: a merge must join two pieces, found {merge!r}")
        whole = pair[0] + pair[1]
        if whole in control or whole in byte_pieces or pair[0] in control or pair[1] in control:
            continue
        kept.append(merge)
    return kept
