"""The laws of tests/laws with packed and unpacked weights: on the native path they hold bit for
bit.

Without it torch sums in orders of its own, and where an activation is rounded to 8 or 16 bits, a
difference in the last bit of a sum becomes one step of these. So the laws of chunks and documents
are held there by a model in float64, whose last bit is too small for that. Nothing helps an
unpacked model in bfloat16: it promises no more than closeness to the truth (tests/parity).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from griffin.model import Griffin
from griffin.ops import native
from griffin.quant import FORMATS, quantize_model
from tests.laws.test_laws import cut, read
from tests.support.toy_folder import CONFIG
from tests.support.toy_models import make_model, make_tokens

W = 16
SHAPES = {
    "griffin": CONFIG.replace(attention_window_size=W),
    "hawk": CONFIG.replace(block_types=("recurrent",) * 3),
}


UNPACKED = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(
    params=[f"{shape}-{format}" for shape in SHAPES for format in (*FORMATS, *UNPACKED)]
)
def model(request: pytest.FixtureRequest) -> Iterator[Griffin]:
    shape, format = request.param.split("-")
    with torch.no_grad():
        model = make_model(SHAPES[shape])
        yield model.to(UNPACKED[format]) if format in UNPACKED else quantize_model(model, format)


@pytest.fixture
def steady(model: Griffin) -> Griffin:
    """Return the model as two orders of summing differ little: see above."""
    if native.built():
        return model
    if model.dtype == torch.bfloat16:
        pytest.skip("a promise of the native kernels")
    return model.double()


def assert_alike(found: torch.Tensor, wanted: torch.Tensor) -> None:
    if native.built():
        assert torch.equal(found, wanted)
        return
    worst = float((found - wanted).abs().max() / wanted.std())
    assert worst < 1e-3, f"off by {worst:.3g} of the deviation"


@pytest.mark.sweep
@pytest.mark.parametrize("size", [1, 7, W, 2 * W + 1])
def test_chunk(steady: Griffin, size: int) -> None:
    """Reading in pieces equals reading at once, logits and state."""
    tokens = make_tokens(steady.config, 2, 3 * W + 5)
    whole, end = steady(tokens)
    pieces, last = read(steady, tokens, cut(3 * W + 5, size))
    assert_alike(pieces, whole)
    for one, other in zip(end.layers, last.layers, strict=True):
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)


@pytest.mark.sweep
@pytest.mark.parametrize("steps", [1, 2, W + 1])
def test_batch(model: Griffin, steps: int) -> None:
    """A row alone equals the same row in company, bit for bit."""
    tokens = make_tokens(model.config, 9, steps)
    logits, _ = model(tokens)
    for row in (0, 4, 8):
        assert torch.equal(model(tokens[row : row + 1])[0][0], logits[row])


@pytest.mark.skipif(not native.built(), reason="a promise of the native kernels")
def test_threads(model: Griffin) -> None:
    """The number of threads changes no bit."""
    tokens = make_tokens(model.config, 2, 3 * W)
    one, _ = model(tokens)
    before = torch.get_num_threads()
    try:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(model(tokens)[0], one)
    finally:
        torch.set_num_threads(before)


def test_packing(steady: Griffin) -> None:
    """Documents packed equal documents alone, and what comes before leaves no trace."""
    one, other = (
        make_tokens(steady.config, 1, 20, seed=2),
        make_tokens(steady.config, 1, 30, seed=3),
    )
    positions = torch.cat([torch.arange(20), torch.arange(30)])[None]
    packed, _ = steady(torch.cat([one, other], 1), segment_pos=positions)
    assert_alike(packed[:, 20:], steady(other)[0])
    changed, _ = steady(torch.cat([(one + 1) % 480, other], 1), segment_pos=positions)
    assert torch.equal(changed[:, 20:], packed[:, 20:])
