"""A GGUF file of Gemma's shape with random weights: what llama.cpp, which has no Griffin, is timed
with.

Every matrix, the embedding included, has the one format that was asked for, so a step reads as many
bits a weight as our model of that format. Needs the package `gguf`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy


@dataclass(frozen=True, kw_only=True)
class GemmaShape:
    """The shape of a Gemma model (arXiv:2403.08295, table 1)."""

    vocab_size: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int = 131_072

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield every tensor's name and shape, outputs before inputs."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "token_embd.weight", (self.vocab_size, self.width)
        for number in range(self.layers):
            for name, shape in (
                ("attn_norm", (self.width,)),
                ("attn_q", (q, self.width)),
                ("attn_k", (kv, self.width)),
                ("attn_v", (kv, self.width)),
                ("attn_output", (self.width, q)),
                ("ffn_norm", (self.width,)),
                ("ffn_gate", (self.mlp_width, self.width)),
                ("ffn_up", (self.mlp_width, self.width)),
                ("ffn_down", (self.width, self.mlp_width)),
            ):
                yield f"blk.{number}.{name}.weight", shape
        yield "output_norm.weight", (self.width,)


SHAPES = {
    "gemma-2b": GemmaShape(
        vocab_size=256_000,
        width=2048,
        mlp_width=16_384,
        layers=18,
        heads=8,
        kv_heads=1,
        head_dim=256,
    ),
    "toy": GemmaShape(
        vocab_size=512,
        width=64,
        mlp_width=128,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=64,
        context=4096,
    ),
}
# our format -> llama.cpp's name and the bytes of a block of 32 weights
FORMATS = {"bf16": ("BF16", 64), "int8": ("Q8_0", 34), "int4": ("Q4_0", 18)}
_STD = 0.02
_PIECE_BLOCKS = 1 << 20  # random blocks held at once


def find_or_write(folder: Path, shape: str, format: str) -> Path:
    """Return the file of that shape and format in a folder, written now if it is not there yet.

    shape: a name of SHAPES; ValueError for another one.
    """
    found = shape_named(shape)
    path = folder / f"{shape}-random-{FORMATS[format][0].lower()}.gguf"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_gemma(path, found, format)
    return path


def shape_named(name: str) -> GemmaShape:
    """Return a shape of SHAPES; ValueError for a name that is none."""
    if name not in SHAPES:
        raise ValueError(f"no shape {name!r}; there are {', '.join(SHAPES)}")
    return SHAPES[name]


def write_gemma(path: str | Path, shape: GemmaShape, format: str, seed: int = 0) -> int:
    """Write the file and return its bytes; it appears under its name when it is whole.

    format: "bf16", "int8" (Q8_0) or "int4" (Q4_0).
    ValueError for another one, for widths that are no multiple of 32, and without the package.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    for _, sizes in shape.tensors():
        if sizes[-1] % 32:
            raise ValueError(
                f"a width of {sizes[-1]} is no multiple of 32, the block of GGUF's formats"
            )
    gguf = _package()
    name, block = FORMATS[format]
    kind = gguf.GGMLQuantizationType[name]
    target = Path(path)
    beside = target.with_name(f".{target.name}.part")
    writer: Any = gguf.GGUFWriter(beside, "gemma")
    try:
        _write_facts(writer, gguf.LlamaFileType, shape, format)
        for tensor, sizes in shape.tensors():
            if len(sizes) == 1:
                writer.add_tensor_info(tensor, sizes, numpy.dtype("float32"), 4 * sizes[0])
            else:
                raw = (sizes[0], sizes[1] // 32 * block)
                size = raw[0] * raw[1]
                writer.add_tensor_info(tensor, raw, numpy.dtype("uint8"), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        random = numpy.random.default_rng(seed)
        for _, sizes in shape.tensors():
            if len(sizes) == 1:
                writer.write_tensor_data(numpy.ones(sizes, numpy.float32))
            else:
                writer.write_tensor_data(_blocks(random, sizes[0] * sizes[1] // 32, format))
        writer.close()
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target.stat().st_size


def _package() -> Any:
    """Import the optional package, which has no types."""
    try:
        return import_module("gguf")
    except ModuleNotFoundError as error:
        raise ValueError(f"a GGUF file cannot be written: {error}; pip install gguf") from error


def _write_facts(writer: Any, types: Any, shape: GemmaShape, format: str) -> None:
    name = FORMATS[format][0]
    writer.add_name(f"random weights, {name}")
    writer.add_file_type(types[f"MOSTLY_{name}"])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.mlp_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    # Ids go in and ids come out: the file needs no pieces of text.
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(shape.vocab_size)


def _blocks(random: numpy.random.Generator, count: int, format: str) -> numpy.ndarray:
    """Return `count` blocks of 32 weights of standard deviation about `_STD`, as bytes."""
    size = FORMATS[format][1]
    out = numpy.empty((count, size), dtype=numpy.uint8)
    for begin in range(0, count, _PIECE_BLOCKS):
        piece = out[begin : begin + _PIECE_BLOCKS]
        if format == "bf16":
            values = random.standard_normal((len(piece), 32), dtype=numpy.float32) * _STD
            piece[:] = (values.view(numpy.uint32) >> 16).astype("<u2").view(numpy.uint8)
        else:
            # Integers of equal probability: their standard deviation is 74 of Q8_0's steps, 4.6 of
            # Q4_0's.
            scale = numpy.float16(_STD / (74.0 if format == "int8" else 4.6))
            piece[:] = random.integers(0, 256, piece.shape, dtype=numpy.uint8)
            piece[:, :2] = numpy.frombuffer(scale.tobytes(), numpy.uint8)
    return out.reshape(-1)
