"""The programs do the same work: the same tokens from the same weights."""

from __future__ import annotations

import numpy
import pytest
import torch

from griffin.bench import work
from griffin.bench.kernels import Kernels
from griffin.bench.ours import Ours
from griffin.bench.program import Options
from griffin.loading import load_model
from griffin.model import Griffin
from griffin.model.screen import unembed_best
from tests.support.toy_folder import CONFIG

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


def test_a_screened_head_counts_as_what_it_reads(folder):
    program, plain = (Ours(options(folder, format=name)) for name in ("int8-screen", "int8"))
    assert (program.format, plain.format) == ("int8-screen", "int8")
    model = program.griffin
    assert model.screen is not None
    rest = plain.weight_bytes - work.head_bytes(plain.griffin)
    assert program.weight_bytes == rest + work.screened_bytes(model)
    drawn = Ours(options(folder, format="int8-screen-drawn"))
    assert drawn.format == "int8-screen-drawn"
    assert drawn.weight_bytes == rest + work.screened_bytes(model, 3)
    kernels = Kernels(model, [])
    names = [name for name in kernels.names() if "screen" in name]
    found = [kernels.measure(name, 0.0) for name in names]
    assert [each["bytes"] for each in found] == [work.screened_bytes(model, n) for n in (2, 3)]
    assert found[0]["bytes"] < found[1]["bytes"] < work.head_bytes(model)
    assert {each["bound"] for each in found} == {"read"}
    tokens = ids(1, 20)
    program.forget(1, 0)
    program.read(tokens)
    hidden, _ = model.trunk(torch.from_numpy(tokens))
    assert int(program._next) == int(unembed_best(model, hidden[:, -1]).argmax())
    drawn.forget(1, 0)
    drawn.read(tokens)
    assert torch.equal(drawn._next, unembed_best(model, hidden[:, -1], 3).argmax(-1, keepdim=True))


def test_kernels_run_and_know_their_bytes(toy):
    kernels = Kernels(toy, [40])
    names = kernels.names()
    assert {name.split(",")[0].split(" ")[0] for name in names} >= {
        *("linear", "head", "choice", "linear_scan", "causal_conv", "rg_lru", "local_attention")
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
