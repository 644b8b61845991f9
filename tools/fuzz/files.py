"""Model folders that were damaged, or made up to do harm: opened, loaded and run once.

A case is a good folder (one file or shards, plain or quantized, with adapters beside it or not) in
which one to three things were changed: a value in a JSON file or a safetensors header, bytes of a
file, or what a name stands for (a FIFO, a folder, a link to itself, a device, nothing).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from griffin import checkpoints
from griffin.checkpoints import CheckpointError
from griffin.defaults import read_defaults
from griffin.model import GriffinConfig
from tests.support.toy_models import make_model

ALLOWED = (CheckpointError,)

# Few parameters; every kind of layer.
SMALL = GriffinConfig(
    vocab_size=32,
    width=32,
    mlp_width=48,
    lru_width=32,
    num_heads=2,
    num_gate_blocks=2,
    block_types=("recurrent", "attention", "recurrent"),
    attention_window_size=8,
    logits_soft_cap=30.0,
    scale_embeddings=True,
)
OWN = SMALL.replace(num_gate_blocks=4, scale_embeddings=False, tie_embeddings=False)

Folder = dict[str, bytes]


@dataclass(frozen=True)
class Case:
    """A folder: contents by name, and what other names stand for; `changes` says what was done."""

    contents: Folder
    kinds: dict[str, str]
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.changes)


# JSON values, as text, that a field may hold instead.
VALUES = (
    *("null", "true", "false", "0", "1", "-1", "2", "3", "1.5", "0.1", "1e-320", "1e300"),
    *("NaN", "Infinity", "-Infinity", "1e999", "-0.0", "1" + "0" * 400, "-" + "9" * 5000),
    *(str(2**31), str(2**40), str(2**62), str(2**63), str(2**64), str(10**9), "1e9", "2048.0"),
    *('""', '"x"', '"../x"', '"F32"', '"I64"', '"attention"', '"\\ud800"', '"\\u0000"'),
    *("[]", "[1]", "[null]", '["F32"]', "[[1]]", "[-1]", "[0, 4]", "[4, 0]", "{}", '{"a": 1}'),
    *('{"rope_theta": {}}', '{"rope_type": "yarn"}', '["recurrent"]', '["attention"]', "[5, {}]"),
    *("[" * 200_000 + "]" * 200_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 900 + "]" * 900),
    *("[" * 200_000, "[" + "0," * 300_000 + "0]", '"' + "x" * 300_000 + '"', "[" * 60 + "]" * 60),
)
# Fields that other models, tools and generations of them write.
FIELDS = (
    *("_attn_implementation_autoset", "unsloth_version", "cache_implementation", "pretraining_tp"),
    *("query_pre_attn_scalar", "residual_multiplier", "mlp_bias", "use_qk_norm", "rotary_pct"),
    *("repetition_penalty", "suppress_tokens", "forced_eos_token_id", "transformers_weights"),
    *("hidden_sise", "num_layers", "layer_types", "rope_parameters", "rope_scaling", "head_dim"),
    *("sliding_window", "hidden_act", "quantization_config", "dtype", "torch_dtype", "extra"),
    *("eos_token_id", "temperature", "top_k", "bad_words_ids", "stop_strings", "num_beams"),
    *("sequence_bias", "max_length", "attention_bias", "tie_word_embeddings", "__metadata__"),
)
GENERATION = {
    "eos_token_id": [1, 3],
    "temperature": 0.5,
    "top_k": 5,
    "do_sample": True,
    "suppress_tokens": [4],
    "bad_words_ids": [[5]],
    "stop_strings": ["."],
    "max_new_tokens": 4,
    "transformers_version": "5.0.0",
}
NAMES = (
    *("model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors"),
    *("config.json", "generation_config.json", "adapter_config.json", "adapter_model.safetensors"),
    *("tokenizer.json", "other.safetensors", "model.pt", "pytorch_model.bin", "manifest.ocdbt"),
)
KINDS = ("fifo", "folder", "loop", "socket", "zero", "huge", "empty", "binary", "secret")


@cache
def good_folders() -> tuple[Folder, ...]:
    """Return the folders that cases begin with."""
    made: list[Folder] = []
    with tempfile.TemporaryDirectory() as place:
        for number, (config, shard, format) in enumerate(
            (
                (SMALL, "1GB", None),
                (SMALL, "20KB", None),
                (OWN, "1GB", None),
                (SMALL, "1GB", "int8"),
                (OWN, "1GB", "int4"),
            )
        ):
            folder = Path(place) / str(number)
            checkpoints.save_model(make_model(config), folder, shard)
            if format:
                checkpoints.quantize(folder, Path(place) / f"{number}q", format)
                folder = Path(place) / f"{number}q"
            files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
            files["generation_config.json"] = json.dumps(GENERATION).encode()
            made.append(files)
    single = made[0]["model.safetensors"]
    made.append({**made[1], "model.safetensors": single})
    adapter = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    beside = {"adapter_config.json": json.dumps(adapter).encode()}
    made.append({**made[0], **beside, "adapter_model.safetensors": _file({}, b"")})
    made.append(beside | {"adapter_model.safetensors": single, "config.json": b"{}"})
    return tuple(made)


torch.set_num_threads(1)


def make(chance: random.Random) -> Case:
    """Return a folder with one to three changes."""
    contents, kinds = dict(chance.choice(good_folders())), {}
    changes = [
        chance.choices((_json, _header, _bytes, _kind), (8, 6, 2, 2))[0](chance, contents, kinds)
        for _ in range(chance.choice((1, 1, 1, 2, 3)))
    ]
    return Case(contents, kinds, tuple(changes))


def attempt(case: Case) -> None:
    """Open the folder as a model, load it, run it; nothing but its own errors may come out."""
    folder = Path(tempfile.mkdtemp(prefix="griffin-fuzz-"))
    try:
        _lay_out(case, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = checkpoints.open(folder)
            read_defaults(folder, checkpoint.config.vocab_size)
            model = checkpoints.load_model(checkpoint)
            tokens = torch.arange(11)[None] % model.config.vocab_size
            _, state = model(tokens)
            model(tokens[:, :1], state)
            checkpoint.digest()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lay_out(case: Case, folder: Path) -> None:
    for name, content in case.contents.items():
        if name not in case.kinds:
            (folder / name).write_bytes(content)
    for name, kind in case.kinds.items():
        path = folder / name
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(name)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(str(path))
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        elif kind == "huge":
            path.write_bytes(case.contents.get(name, b"")[:100_000])
            os.truncate(path, 3 << 30)
        elif kind == "secret":
            path.write_bytes(b"{}")
            path.chmod(0)
        else:
            path.write_bytes(b"" if kind == "empty" else bytes(range(256)) * 9)


def _json(chance: random.Random, contents: Folder, kinds: dict[str, str]) -> str:
    names = [name for name in contents if name.endswith(".json")] or ["config.json"]
    name = chance.choice(names)
    contents[name], what = _changed(chance, contents.get(name, b"{}"))
    return f"{name}: {what}"


def _header(chance: random.Random, contents: Folder, kinds: dict[str, str]) -> str:
    names = [name for name in contents if name.endswith(".safetensors")]
    if not names:
        return "nothing"
    name = chance.choice(names)
    content = contents[name]
    (length,) = struct.unpack("<Q", content[:8]) if len(content) >= 8 else (0,)
    if chance.random() < 0.1:
        lie = chance.choice((0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1))
        contents[name] = struct.pack("<Q", max(lie, 0)) + content[8:]
        return f"{name}: a header of {lie} bytes"
    header, what = _changed(chance, content[8 : 8 + length])
    contents[name] = struct.pack("<Q", len(header)) + header + content[8 + length :]
    return f"{name}: {what}"


def _changed(chance: random.Random, text: bytes) -> tuple[bytes, str]:
    """Return a JSON text with one value, key or length changed, and what was done."""
    try:
        root: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text[: len(text) // 2], "cut in the middle"
    value, mark = chance.choice(VALUES), "@@value@@"
    places: list[tuple[Any, Any]] = []
    if isinstance(root, (dict, list)):
        _collect(root, places)
    action = chance.choice(("replace", "replace", "replace", "drop", "add", "twice", "root"))
    if action == "root" or not places:
        return value.encode(), f"is {value[:40]}"
    holder, key = chance.choice(places)
    what = f"{action} {key!r} by {value[:40]}"
    if action == "drop":
        del holder[key]
        what = f"drop {key!r}"
    elif action == "add" and isinstance(root, dict):
        key = chance.choice(FIELDS)
        root[key] = mark
        what = f"add {key!r}: {value[:40]}"
    elif action == "twice" and isinstance(root, dict) and root:
        first = next(iter(root))
        root["@@twice@@"] = mark
        changed = json.dumps(root).replace("@@twice@@", first).replace(f'"{mark}"', value)
        return changed.encode(), f"{first!r} twice, the second {value[:40]}"
    else:
        holder[key] = mark
    return json.dumps(root).replace(f'"{mark}"', value).encode(), what


def _collect(node: Any, places: list[tuple[Any, Any]], depth: int = 0) -> None:
    """Find every place of a value; the outer ones count more often, for there are fewer."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(inner):
        places += [(node, key)] * (1 if depth else 3)
        if isinstance(value, (dict, list)) and depth < 5:
            _collect(value, places, depth + 1)


def _bytes(chance: random.Random, contents: Folder, kinds: dict[str, str]) -> str:
    name = chance.choice(list(contents))
    content = bytearray(contents[name])
    place = chance.randrange(len(content) + 1)
    how: dict[str, Callable[[], bytes]] = {
        "cut": lambda: bytes(content[:place]),
        "longer": lambda: bytes(content) + chance.randbytes(9),
        "other bytes": lambda: bytes(content[:place] + chance.randbytes(9) + content[place + 9 :]),
        "inserted": lambda: bytes(content[:place] + chance.randbytes(3) + content[place:]),
        "UTF-16": lambda: bytes(content).decode("latin-1").encode("utf-16"),
        "a byte order mark": lambda: b"\xef\xbb\xbf" + bytes(content),
    }
    what = chance.choice(list(how))
    contents[name] = how[what]()
    return f"{name}: {what} at byte {place}"


def _kind(chance: random.Random, contents: Folder, kinds: dict[str, str]) -> str:
    name = chance.choice((*contents, *NAMES))
    if chance.random() < 0.3:
        contents.pop(name, None)
        return f"{name}: gone"
    kinds[name] = chance.choice(KINDS)
    return f"{name}: {kinds[name]}"


def _file(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest
