"""The programs do the same work: the same tokens from the same weights."""

from __future__ import annotations

import numpy
import pytest
import torch

from griffin.bench.kernels import Kernels
from griffin.bench.programs import Options
from griffin.bench.programs.ours import Ours
from griffin.loading import load_model
from griffin.model import Griffin
from tests.toy import CONFIG

STEPS = 6


@pytest.fixture(scope="module")
def toy(folder) -> Griffin:
    return load_model(folder, device="cpu").requires_grad_(False)


def options(folder, **changes) -> Options:
    fields = {
        "model": str(folder),
        "format": "stored",
        "threads": 1,
        "chunk": 5,
        "config": CONFIG.to_dict(),
    }
    return Options(**fields | changes)


def ids(batch: int, length: int) -> numpy.ndarray:
    return numpy.random.default_rng(0).integers(10, 480, (batch, length))


def greedy(model: Griffin, tokens: numpy.ndarray) -> list[list[int]]:
    """Continue each row by reading all of it again for each token."""
    seen = torch.from_numpy(tokens)
    for _ in range(STEPS + 1):
        logits, _ = model(seen)
        seen = torch.cat([seen, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return seen[:, tokens.shape[1] :].tolist()


def continued(program, tokens: numpy.ndarray) -> list[list[int]]:
    program.forget(tokens.shape[0], tokens.shape[1] + STEPS + 1)
    program.read(tokens)
    found = [numpy.ravel(program._next).tolist()]
    for _ in range(STEPS):
        program.step()
        found.append(numpy.ravel(program._next).tolist())
    return [list(row) for row in zip(*found, strict=True)]


@pytest.mark.parametrize("batch", [1, 3])
def test_ours_continues_greedily(folder, toy, batch):
    program = Ours(options(folder))
    tokens = ids(batch, 40)  # eight chunks, past the window
    assert continued(program, tokens) == greedy(toy, tokens)
    assert program.format == "float32" and program.weight_bytes == sum(
        p.nbytes for p in toy.parameters()
    )
    took = program.resume()
    assert took["bytes"] > 0 and program._memory.pos.tolist() == [40 + STEPS + 1] * batch


def test_formats_of_ours(folder):
    program = Ours(options(folder, format="bf16"))
    assert program.griffin.dtype == torch.bfloat16 and program.format == "bf16"
    work = program.decode_work(10, 2)
    assert work["bytes"] < program.weight_bytes and program.prefill_work(10)["operations"] > 0


@pytest.mark.parametrize(("format", "bits"), [("bf16-packed", 16), ("int8", 8), ("int4", 4.5)])
def test_packed_formats_read_fewer_bytes(folder, toy, format, bits):
    program = Ours(options(folder, format=format))
    assert program.format == format
    shapes = [
        m.weight.shape
        for m in toy.modules()
        if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))
    ]
    matrices = sum(o * i for o, i in shapes)
    others = sum(p.numel() for p in toy.parameters()) - matrices
    assert program.weight_bytes == pytest.approx(matrices * bits / 8 + 4 * others, rel=0.07)
    program.forget(1, 0)
    program.read(ids(1, 20))
    program.step()


def test_transformers_does_the_same(folder, toy):
    pytest.importorskip("transformers")
    from griffin.bench.programs.with_transformers import Transformers

    program = Transformers(options(folder))
    tokens = ids(2, 20)  # it shows one key fewer, so not past the window
    assert continued(program, tokens) == greedy(toy, tokens)
    assert continued(program, tokens) == greedy(toy, tokens)  # it forgets
    assert program.weight_bytes == sum(p.nbytes for p in toy.parameters())


def test_recurrentgemma_does_as_much(folder, toy):
    pytest.importorskip("recurrentgemma.torch")
    from griffin.bench.programs.with_recurrentgemma import RecurrentGemma

    program = RecurrentGemma(options(folder))
    first = continued(program, ids(2, 20))
    assert continued(program, ids(2, 20)) == first
    assert program._seen == 20 + STEPS
    assert program.format == "bf16" and 2 * program.weight_bytes == sum(
        p.nbytes for p in toy.parameters()
    )


@pytest.mark.parametrize("format", ["bf16", "int8", "int4"])
def test_llama_cpp_continues_as_it_would_alone_and_in_a_larger_cache(tmp_path, format):
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from griffin.bench.gemma_gguf import SHAPES, write_gemma
    from griffin.bench.programs.with_llama_cpp import LlamaCpp

    path = tmp_path / "toy.gguf"
    write_gemma(path, SHAPES["toy"], format)
    program = LlamaCpp(options(path, format=format))
    tokens = ids(1, 600)
    whole = continued(program, tokens)
    program.forget(1, 512)
    program.read(tokens[:, :512])
    program.reserve(1024)
    program.read(tokens[:, 512:])
    program.step()
    assert program._next == whole[0][1:2]
    assert (
        program.decode_work(100, 1)["bytes"] - program.decode_work(0, 1)["bytes"]
        == 100 * 2 * 2 * 64 * 2
    )


def test_kernels_run_and_know_their_bytes(toy):
    kernels = Kernels(toy, [40])
    names = kernels.names()
    assert {name.split(",")[0].split(" ")[0] for name in names} >= {
        *("linear", "head", "linear_scan", "causal_conv", "rg_lru", "local_attention")
    }
    for name in names:
        found = kernels.measure(name, 0.0)
        assert found["seconds"] > 0 and found["bytes"] > 0 and found["tokens"] in (1, 40)
        assert (found["copy_rate"] is None) == (found["bound"] == "read")
    linear = sum(
        kernels.measure(name, 0.0)["bytes"] for name in names if name.startswith("linear ")
    )
    modules = [m for m in toy.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == sum(p.nbytes for m in modules for p in m.parameters())
