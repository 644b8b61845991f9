"""Model files that mean harm: one line, at once, in bounded memory."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError
from griffin.checkpoints.config_json import parse_config
from tests.checkpoints.test_config_json import RELEASED_2B
from tests.support.toy_checkpoints import HUGGINGFACE
from tests.support.toy_models import make_model
from tools.fuzz import files, harness

DEEP = "[" * 200_000 + "]" * 200_000
MANY = "1" + "0" * 400


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    checkpoints.save_model(make_model(HUGGINGFACE), folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def folder(good: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in good.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def refusal(attempt: Callable[[], object]) -> str:
    """Return the one line of what is refused at once and in bounded memory."""
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError) as caught:
        attempt()
    text = str(caught.value)
    assert text.isprintable() and len(text) < 1200, text[:200]
    assert time.process_time() - begin < 5, "it takes a tenth of a second, on a slow machine more"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    return text


# Values of another JSON type, or beyond all bounds, as text.
WRONG = (
    *("0", "-1", "1.5", "1e999", "NaN", "true", '"x"', "[]", "[1]", "{}", '{"a": [1]}', '["F32"]'),
    *(str(10**9), MANY, str(1 << 40), str(1 << 62), str(1 << 64), "1e300", "1e-320", "-0.5"),
    *(DEEP, "[" * 500 + "]" * 500, "9" * 5000, json.dumps(["attention"] * 100_000)),
)
NUMBERS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "lru_width",
           "num_attention_heads", "num_key_value_heads", "head_dim", "attention_window_size",
           "conv1d_width", "rms_norm_eps", "logits_soft_cap", "rope_theta",
           "partial_rotary_factor")  # fmt: skip
# What is no harm where it stands: a number that a field may have, and what asks for nothing.
ALLOWED = {
    ("rms_norm_eps", "true"), ("logits_soft_cap", "0"), ("logits_soft_cap", "1.5"),
    ("logits_soft_cap", str(10**9)), ("rope_theta", "1.5"), ("rope_theta", str(10**9)),
    ("rope_theta", str(1 << 40)), ("partial_rotary_factor", "0"),
    ("partial_rotary_factor", "1e-320"),
}  # fmt: skip


@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_that_are_none(field: str) -> None:
    fields = {k: v for k, v in RELEASED_2B.items() if k != field}
    for value in WRONG:
        if (field, value) in ALLOWED:
            continue
        text = json.dumps({**fields, field: "@"}).replace('"@"', value)
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            continue  # not JSON that Python reads: see the files below
        refusal(lambda given=given: parse_config(given, "config.json"))


@pytest.mark.parametrize(
    "field",
    ["block_types", "layer_types", "rope_parameters", "rope_scaling", "hidden_activation",
     "attention_bias", "tie_word_embeddings", "model_type", "quantization_config", "dtype"],
)  # fmt: skip
def test_fields_of_another_type(folder: Path, field: str) -> None:
    fields = json.loads((folder / "config.json").read_text())
    for value in WRONG:
        text = json.dumps({**fields, field: "@"}).replace('"@"', value)
        (folder / "config.json").write_text(text)
        if field == "rope_scaling" and value in ("[]", "{}"):
            continue
        if (field, value) in (("rope_parameters", "{}"), ("tie_word_embeddings", "true")):
            continue
        if (field, value) in (("attention_bias", "true"), ("dtype", '"x"')):
            continue
        if field == "block_types" and value.startswith('["attention"'):
            continue
        assert "config.json" in refusal(lambda: checkpoints.open(folder)), value[:50]


@pytest.mark.parametrize(
    "value", [DEEP, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 5000, "[" * 200_000, "[1,]", "nul"]
)
@pytest.mark.parametrize("field", ["num_hidden_layers", "license", "id2label", "_name_or_path"])
def test_json_that_is_none_in_any_field(folder: Path, field: str, value: str) -> None:
    fields = json.loads((folder / "config.json").read_text())
    text = json.dumps({**fields, field: "@"}).replace('"@"', value)
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(lambda: checkpoints.open(folder))


def test_a_config_of_any_size(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"a": "' + b"x" * (5 << 20) + b'"}')
    assert "has more than 4,194,304 bytes" in refusal(lambda: checkpoints.open(folder))
    (folder / "config.json").write_bytes(b"[" + b"[]," * 1_300_000 + b"[]]")
    assert "lists and objects" in refusal(lambda: checkpoints.open(folder))
    (folder / "config.json").write_bytes(b"[" + b"0," * 2_000_000 + b"0]")
    assert "must hold a JSON object" in refusal(lambda: checkpoints.open(folder))


def put_header(file: Path, text: bytes, rest: bytes) -> None:
    file.write_bytes(struct.pack("<Q", len(text)) + text + rest)


@pytest.mark.parametrize("key", ["dtype", "shape", "data_offsets", "all", "name", "metadata"])
def test_headers_that_lie(folder: Path, good: dict[str, bytes], key: str) -> None:
    content = good["model.safetensors"]
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    rest = content[8 + length :]
    name = "model.final_norm.weight"
    for value in (*WRONG, "[[48], [1]]", '[48, "1"]', "[0.0, 192.0]", f"[0, {1 << 63}]"):
        changed = {k: dict(v) for k, v in header.items()}
        if key == "all":
            changed[name] = "@"
        elif key == "name":
            changed["@"] = changed[name]
        elif key == "metadata":
            changed["__metadata__"] = "@"
        else:
            changed[name][key] = "@"
        text = json.dumps(changed).replace('"@"', value if key != "name" else f'"{name}"')
        put_header(folder / "model.safetensors", text.encode(), rest)
        if key == "metadata" and value not in (DEEP, "[" * 500 + "]" * 500, "9" * 5000):
            checkpoints.open(folder)  # which nobody reads
            continue
        assert "model.safetensors" in refusal(lambda: checkpoints.open(folder)), value[:50]


def test_a_header_of_any_size(folder: Path) -> None:
    for text in (b"{" + b" " * (5 << 20) + b"}", b"[" + b"[[[[]]]]," * 460_000 + b"[]]"):
        put_header(folder / "model.safetensors", text, b"")
        refusal(lambda: checkpoints.open(folder))


def test_a_header_of_many_names_against_a_config_of_many_layers(folder: Path) -> None:
    header = {
        f"t{number}": {"dtype": "BF16", "shape": [1], "data_offsets": [2 * number, 2 * number + 2]}
        for number in range(30_000)
    }
    put_header(folder / "model.safetensors", json.dumps(header).encode(), bytes(60_000))
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 512}))
    assert "does not fit its config" in refusal(lambda: checkpoints.open(folder))


@pytest.mark.parametrize("size", [1 << 33, 1 << 45])
def test_a_sparse_file_of_any_size(folder: Path, good: dict[str, bytes], size: int) -> None:
    """Its header is compared with its length before anything is mapped."""
    try:
        os.truncate(folder / "model.safetensors", size)
    except OSError:
        pytest.skip("the file system has no files of that size")
    assert "the file has" in refusal(lambda: checkpoints.open(folder))
    # And a config is compared with the header before anything is made.
    (folder / "model.safetensors").write_bytes(good["model.safetensors"])
    fields = json.loads((folder / "config.json").read_text())
    for change in ({"vocab_size": 1 << 24}, {"hidden_size": 6 << 14, "head_dim": None},
                   {"num_hidden_layers": 512}):  # fmt: skip
        (folder / "config.json").write_text(json.dumps(fields | change))
        refusal(lambda: checkpoints.open(folder))


FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "shard.safetensors",
         "2b.pt", "generation_config.json")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "broken", "device"])
def test_names_that_stand_for_no_file(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if name in ("shard.safetensors", "2b.pt"):
        (folder / "model.safetensors").unlink()
    if name == "shard.safetensors":
        weight_map = json.dumps({"weight_map": {"a": name}})
        (folder / "model.safetensors.index.json").write_text(weight_map)
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(name),
        "broken": lambda: path.symlink_to("nowhere"),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    if name == "generation_config.json":
        from griffin.defaults import read_defaults

        assert name in refusal(lambda: read_defaults(folder, 9))
    else:
        text = refusal(lambda: checkpoints.open(folder))
        assert name in text or "no checkpoint" in text
    if name.endswith((".safetensors", ".pt")):
        refusal(lambda: checkpoints.open(path))


def test_a_tensor_may_have_any_name(folder: Path, good: dict[str, bytes]) -> None:
    content = good["model.safetensors"]
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name in ("a\nb", "\x1b[31m", "\ud800", "x" * 100_000, "", "\u202e"):
        changed: dict[str, Any] = {name if k.endswith("norm.weight") else k: v
                                   for k, v in header.items()}  # fmt: skip
        put_header(folder / "model.safetensors", json.dumps(changed).encode(),
                   content[8 + length :])  # fmt: skip
        refusal(lambda: checkpoints.open(folder))


@pytest.mark.parametrize("number", range(30))
def test_a_few_of_the_cases_that_are_made_up(number: int) -> None:
    """`python -m tools.fuzz files` tries as many as one likes, each in bounded memory and time."""
    case = files.make(random.Random(f"a few {number}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            files.attempt(case)
        except files.ALLOWED as error:
            assert str(error).isprintable()


def test_the_cases_take_every_way() -> None:
    made = [files.make(harness.chance("files", 0, number)) for number in range(300)]
    assert {kind for case in made for kind in case.kinds.values()} == set(files.KINDS)
    assert torch.get_num_threads() == 1
