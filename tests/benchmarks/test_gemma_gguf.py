"""The file that llama.cpp is timed with: read back by GGUF's own reader."""

from __future__ import annotations

import dataclasses

import pytest

gguf = pytest.importorskip("gguf")

from benchmarks.gemma_gguf import FORMATS, SHAPES, find_or_write, write_gemma  # noqa: E402

TOY = SHAPES["toy"]


@pytest.mark.parametrize("format", FORMATS)
def test_weights_are_random_and_of_the_size_that_was_asked_for(tmp_path, format):
    path = tmp_path / "toy.gguf"
    assert write_gemma(path, TOY, format) == path.stat().st_size
    file = gguf.GGUFReader(path)
    assert file.get_field("gemma.block_count").contents() == TOY.layers
    assert file.get_field("gemma.vocab_size").contents() == TOY.vocab_size
    found = {t.name: t for t in file.tensors}
    assert {name: tuple(reversed(t.shape.tolist())) for name, t in found.items()} == dict(
        TOY.tensors()
    )
    bits = {"bf16": 16, "int8": 8.5, "int4": 4.5}[format]
    for name, tensor in found.items():
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if len(tensor.shape) == 1:
            assert (values == 1).all()
            continue
        assert tensor.n_bytes == tensor.n_elements * bits / 8
        assert values.std() == pytest.approx(0.02, rel=0.1) and abs(values.mean()) < 0.004, name
        assert len(set(values.reshape(-1)[:64].tolist())) > 8


def test_gemma_2b_is_as_large_as_the_model_of_that_name():
    matrices = sum(a * b for _, (a, *rest) in SHAPES["gemma-2b"].tensors() for b in rest)
    assert matrices == pytest.approx(2.506e9, rel=1e-3)
    assert matrices * 4.5 / 8 == pytest.approx(1.41e9, rel=0.01)


def test_a_file_is_written_once(tmp_path):
    path = find_or_write(tmp_path / "new", "toy", "int4")
    stamp = path.stat().st_mtime_ns
    assert (
        find_or_write(tmp_path / "new", "toy", "int4") == path and path.stat().st_mtime_ns == stamp
    )
    with pytest.raises(ValueError, match="there are gemma-2b, toy"):
        find_or_write(tmp_path, "gemma-3", "int4")


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="no multiple of 32"):
        write_gemma(tmp_path / "x.gguf", dataclasses.replace(TOY, width=48), "int4")
    with pytest.raises(ValueError, match="bf16, int8, int4"):
        write_gemma(tmp_path / "x.gguf", TOY, "int3")
    assert not list(tmp_path.iterdir())
