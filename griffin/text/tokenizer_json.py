"""`tokenizer.json`, through the tokenizers library."""

import json
import re
import secrets
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from griffin.foreign import read_json, shown
from griffin.text.special_tokens import SpecialTokens
from griffin.text.text_steps import check_steps
from griffin.text.vocabulary import CONTROL_NAMES, SPACE, Vocabulary

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MOST_BYTES = 64 << 20  # of the file; Gemma's has 17 to 33 million
_MOST_LISTS = 1_000_000  # merges are written as lists of two; Gemma's are 580,604
_MOST_HOLES = 1 << 16  # ids without a piece
_MOST_ADDED = (1 << 16, 1 << 19)  # added tokens, and characters of theirs: 180 bytes each
_LONG = 1 << 11  # characters; a shorter text takes less than handing it to another thread


class TokenizerWarning(UserWarning):
    """A `tokenizer.json` asks for something that is not done."""


def read_spec(path: Path) -> dict[str, Any]:
    """Read a BPE `tokenizer.json` that the library may be given.

    Raises ValueError, naming the file and the entry, for another kind of file, and for steps that
    would take more than their text is worth.
    """
    spec = read_json(path, _MOST_BYTES, containers=_MOST_LISTS)
    model = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{path}: not a BPE tokenizer.json (no model with a vocabulary in it)")
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("merges"), list):
        raise ValueError(
            f"{path}: holds a {shown(model.get('type'))} model; Griffin's tokenizers are BPE"
        )
    try:
        check_steps(spec)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return spec


def open_tokenizer_json(
    path: Path, special: SpecialTokens
) -> tuple[Vocabulary, Callable[[str], list[int]], dict[str, str]]:
    """Read a BPE `tokenizer.json`.

    Returns the vocabulary, a function from text to ids that can give no control id (nor a byte
    piece's id for its written form, "<0x41>"), and the roles the file itself tells ({"unk": ...}).
    Raises ValueError, naming the file and the entry, for anything that is not such a file.

    How the guarantee is made: in the copy that goes to the library, each control token is renamed,
    in the vocabulary and among the added tokens, to a random name of 128 bits that nobody can type,
    and every merge that would build or use one is left out. Ids and sizes stay as they are.
    """
    spec = read_spec(path)
    model: dict[str, Any] = spec["model"]
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
        if not isinstance(unk, str):
            raise ValueError(f"{path}: unk_token must be a text, not {shown(unk)}")
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
    for note in _passed_over(spec, special.names.get("bos", "<bos>")):
        warnings.warn(f"{path}: {note}", TokenizerWarning, stacklevel=4)
    model["dropout"] = None
    spec["added_tokens"] = [
        {**entry, "content": aliases.get(entry["content"], entry["content"])} for entry in added
    ]
    # BOS is our own business, and so is the way back to text.
    spec.update(post_processor=None, decoder=None, truncation=None, padding=None)
    renamed = spec["added_tokens"]
    content = json.dumps(spec)
    spec.clear()  # 200 MB of small objects for Gemma's vocabulary
    try:
        library = _panics_named(tokenizers.Tokenizer.from_str, content)
    except Exception as error:  # the library raises bare Exception for every defect of the file
        raise ValueError(f"{path}: the tokenizers library refuses it ({error})") from error
    for entry in renamed:
        if library.token_to_id(entry["content"]) != entry["id"]:
            raise ValueError(
                f"{path}: added token with id {entry['id']} does not get that id; ids have a hole"
            )

    def encode(text: str) -> list[int]:
        if len(text) < _LONG:
            return _panics_named(library.encode, text, add_special_tokens=False).ids
        # The same ids; but `encode` stops every other thread, for seconds where the text is long.
        (found,) = _panics_named(library.encode_batch_fast, [text], add_special_tokens=False)
        return found.ids

    return vocabulary, encode, {"unk": unk} if unk is not None else {}


def _panics_named(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the library. Where it gives up ("panics"), no `except Exception` would catch what comes:
    ValueError instead."""
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizers library panics: {error}") from None


def _unmarks_spaces(decoder: Any) -> bool:
    """Tell whether the file's decoder turns U+2581 into a space."""
    if not isinstance(decoder, dict):
        return False
    if decoder.get("type") == "Sequence":
        inner = decoder.get("decoders")
        return isinstance(inner, list) and any(map(_unmarks_spaces, inner))
    return decoder.get("type") == "Replace" and decoder.get("pattern") == {"String": SPACE}


def _passed_over(spec: Mapping[str, Any], bos: str) -> list[str]:
    """Say what the file asks for and is not done."""
    notes = [
        f"its {name} is not done: a text becomes all of its ids, and no others"
        for name in ("truncation", "padding")
        if spec.get(name)
    ]
    if dropout := spec["model"].get("dropout"):
        notes.append(f"its dropout of {shown(dropout)} is for training: ids are not drawn by lot")
    if not _adds_no_more(spec.get("post_processor"), bos):
        notes.append(f"its post_processor is not run: {bos} comes first, and nothing else is added")
    return notes


def _adds_no_more(step: Any, bos: str) -> bool:
    """Tell whether a post-processor puts nothing but one `bos` before a text."""
    kind = step.get("type") if isinstance(step, dict) else step
    if kind == "Sequence" and isinstance(step.get("processors"), list):
        return all(_adds_no_more(inner, bos) for inner in step["processors"])
    if kind == "TemplateProcessing" and isinstance(step.get("single"), list):
        ids = [part["SpecialToken"] for part in step["single"] if "SpecialToken" in part]
        return [part.get("id") for part in ids if isinstance(part, dict)] in ([], [bos])
    return kind in (None, "ByteLevel")


def _added_tokens(entries: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(entries, list):
        raise ValueError(f"{path}: added_tokens must be a list, not {shown(entries)}")
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("content"), str)
            or not entry["content"]
            or type(entry.get("id")) is not int
        ):
            raise ValueError(
                f"{path}: an added token needs an integer id and a content, found {shown(entry)}"
            )
    characters = sum(len(entry["content"]) for entry in entries)
    if len(entries) > _MOST_ADDED[0] or characters > _MOST_ADDED[1]:
        raise ValueError(
            f"{path}: has {len(entries):,} added tokens of {characters:,} characters; at most"
            f" {_MOST_ADDED[0]:,} of {_MOST_ADDED[1]:,} are read"
        )
    return entries


def _pieces_by_id(
    vocab: Mapping[str, Any], added: list[dict[str, Any]], path: Path
) -> list[str | None]:
    meanings = [*vocab.items(), *((entry["content"], entry["id"]) for entry in added)]
    most = len(meanings) + _MOST_HOLES
    for piece, id in meanings:
        if type(id) is not int or not 0 <= id < most:
            raise ValueError(
                f"{path}: id of {shown(piece)} is {shown(id)}; allowed are 0 to {most - 1}"
            )
    pieces: list[str | None] = [None] * (max((id for _, id in meanings), default=-1) + 1)
    for piece, id in meanings:
        if pieces[id] not in (None, piece):
            raise ValueError(
                f"{path}: id {id} belongs to both {shown(pieces[id])} and {shown(piece)}"
            )
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
            raise ValueError(f"{path}: a merge must join two pieces, found {shown(merge)}")
        whole = pair[0] + pair[1]
        if whole in control or whole in byte_pieces or pair[0] in control or pair[1] in control:
            continue
        kept.append(merge)
    return kept
