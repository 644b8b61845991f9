"""Text to ids and back, one interface over `tokenizer.json` and Kaggle's `tokenizer.model`."""

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from griffin.foreign import is_there
from griffin.text.cutter import PART, Cutter
from griffin.text.sentencepiece_model import open_sentencepiece
from griffin.text.special_tokens import FURTHER_ROLES, ROLES, SpecialTokens, read_special_tokens
from griffin.text.tokenizer_json import open_tokenizer_json
from griffin.text.utf8 import REPLACEMENT, decode_all, decode_prefix
from griffin.text.vocabulary import TextTooLong, Vocabulary, check_count

UNCUT = 1 << 20  # characters without a place to cut, where there is a bound: a megabyte of one word
# Gemma's layout keeps text as it is; these show a dummy prefix, merged spaces or another byte
# alphabet.
_PROBES = ("a b", " a", "a  b")


class Tokenizer:
    """A vocabulary with its way from text to ids; make one with `Tokenizer.open(path)`.

    bos_id, eos_id: always there. pad_id, unk_id, start_of_turn_id, end_of_turn_id: None where
                    absent.
    names: what the files name besides: "sep", "cls", "mask".
    control_ids: the ids that text from a user can never become. chat_template: the checkpoint's
                 Jinja source.
    most_ids: a text that becomes more ids is refused before these are made; None refuses none.
    (One exception: `unk_id`, in a vocabulary without byte pieces, is what unknown characters
    become.)
    """

    def __init__(
        self,
        path: Path,
        vocabulary: Vocabulary,
        encode_text: Callable[[str], list[int]],
        special: SpecialTokens,
    ) -> None:
        self.path = path
        self.vocabulary = vocabulary
        self.chat_template = special.chat_template
        self.names = {role: special.names[role] for role in FURTHER_ROLES if role in special.names}
        self.most_ids: int | None = None
        self._encode_text = encode_text
        ids: dict[str, int | None] = {}
        for role in ROLES:
            name = special.names.get(role, f"<{role}>")
            ids[role] = vocabulary.control.get(name)
            if ids[role] is None and (role in special.names or role in ("bos", "eos")):
                raise ValueError(
                    f"{path}: has no token {name!r} for {role}_token among its {len(vocabulary)}"
                    " pieces"
                )
        bos, eos = ids["bos"], ids["eos"]
        assert bos is not None and eos is not None
        self.bos_id: int = bos
        self.eos_id: int = eos
        self.pad_id: int | None = ids["pad"]
        self.unk_id: int | None = ids["unk"]
        self.start_of_turn_id: int | None = vocabulary.control.get("<start_of_turn>")
        self.end_of_turn_id: int | None = vocabulary.control.get("<end_of_turn>")
        for probe in _PROBES:
            got = self._encode_text(probe)
            if (
                self.unk_id not in got
                and (back := decode_all([vocabulary.token_bytes(id) for id in got])) != probe
            ):
                raise ValueError(
                    f"{path}: turns {probe!r} into {back!r}; Griffin needs Gemma's layout, exact"
                    " text"
                )

    @classmethod
    def open(cls, path: str | Path) -> "Tokenizer":
        """Open the tokenizer in a folder, or a `tokenizer.json` or `tokenizer.model` file.

        In a folder `tokenizer.json` is preferred. tokenizer_config.json, special_tokens_map.json
        and chat_template.jinja beside it are read where they are.
        Raises ValueError naming the file that is missing, torn or of another kind; ImportError if
        `tokenizer.model` is all there is and sentencepiece is not installed.
        """
        path = Path(path)
        if path.is_dir():
            files = [path / "tokenizer.json", path / "tokenizer.model"]
            found = next(filter(is_there, files), None)
            if found is None:
                raise ValueError(
                    f"{path}: holds neither tokenizer.json nor tokenizer.model; copy one there"
                )
            path = found
        elif not is_there(path):
            raise ValueError(f"there is no tokenizer {path}: no such file or folder")
        if path.suffix not in (".json", ".model"):
            raise ValueError(
                f"{path}: a tokenizer file ends in .json (tokenizers) or .model (sentencepiece)"
            )
        special = read_special_tokens(path.parent)
        reader = open_tokenizer_json if path.suffix == ".json" else open_sentencepiece
        vocabulary, encode_text, roles = reader(path, special)
        special = SpecialTokens(
            names={**roles, **special.names},
            extra=special.extra,
            chat_template=special.chat_template,
        )
        return cls(path, vocabulary, encode_text, special)

    @property
    def vocab_size(self) -> int:
        """Count the ids: all are below this number. A model may have more rows, which mean
        nothing."""
        return len(self.vocabulary)

    @property
    def control_ids(self) -> frozenset[int]:
        """Give the ids that are instructions to the model and never text."""
        return self.vocabulary.control_ids

    @cached_property
    def digest(self) -> str:
        """Hash what the ids mean (SHA-256, hex); a saved state is only good for an equal one."""
        return self.vocabulary.digest()

    def encode(self, text: str, bos: bool = True, allow_control: bool = False) -> list[int]:
        """Turn text into ids.

        bos: put BOS first, exactly once.
        allow_control: let names such as "<end_of_turn>" in the text become their control tokens;
                       only for text you wrote yourself. Without it they are ordinary text.
        Raises ValueError for text that is not Unicode (lone surrogates). Where `most_ids` is set,
        TextTooLong for more ids, and for a megabyte of text that cannot be cut.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text holds a lone surrogate, U+{ord(text[error.start]):04X}, at character"
                f" {error.start}, which no tokenizer can encode; decode your input with"
                " errors='replace'"
            ) from error
        if allow_control:
            ids: list[int] = []
            for index, part in enumerate(self.control_pattern.split(text)):
                if index % 2:  # the split's captured separators
                    ids.append(self.vocabulary.control[part])
                elif part:
                    ids += self._text_ids(part)
        else:
            ids = self._text_ids(text)
        if not bos:
            return ids
        first = 0
        while first < len(ids) and ids[first] == self.bos_id:
            first += 1
        return [self.bos_id, *ids[first:]]

    def _text_ids(self, text: str) -> list[int]:
        """Return a text's ids. A long one is encoded in parts: as a whole it takes gigabytes."""
        ids: list[int] = []
        for part in self._cutter.parts(text) if len(text) > PART else (text,):
            if self.most_ids is not None and len(part) > UNCUT:
                raise TextTooLong(
                    f"the text has {len(part)} characters in one piece that cannot be cut; at most"
                    f" {UNCUT} are taken"
                )
            ids += self._encode_text(part)
            check_count(len(ids), self.most_ids)
        return ids

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self)

    @cached_property
    def control_pattern(self) -> re.Pattern[str]:
        """Match any control token's name; of two that begin alike, the longer one."""
        names = sorted(self.vocabulary.control, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")")

    def decode(self, ids: Iterable[int], skip_control: bool = True) -> str:
        """Turn ids into text. skip_control: leave control tokens out, else write their names.

        Bytes that form no character become one U+FFFD each. Raises ValueError for an id out of
        range.
        """
        skip = self.control_ids if skip_control else frozenset()
        return decode_all([self.vocabulary.token_bytes(id) for id in ids if id not in skip])

    def token_bytes(self, id: int) -> bytes:
        """Return the exact bytes of one token, a byte-fallback token's single byte included."""
        return self.vocabulary.token_bytes(id)

    def token_text(self, id: int) -> str:
        """Return a token as text for display; bytes that are no character show as U+FFFD."""
        text, rest = decode_prefix(self.vocabulary.token_bytes(id))
        return text + REPLACEMENT * len(rest)


def find_tokenizer(folder: Path) -> Path:
    """Return where a checkpoint's tokenizer lies: beside the weights, or above them (Kaggle)."""
    for place in (folder, folder.parent):
        if any((place / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            return place
    raise ValueError(
        f"{folder} has no tokenizer.json or tokenizer.model, nor has the folder above; put one"
        " there, name one with tokenizer=..., or use griffin.load_model for the model alone"
    )
