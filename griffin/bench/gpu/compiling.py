"""All kernels that a model asks for, compiled ahead of time and at once: registers and spills.

`python -m griffin.bench.gpu.compiling CAPABILITY THREADS [MOST]` does it and prints JSON, in a
process of its own, for which Triton's interpreter is off. What was compiled lies in Triton's cache
then, and the rows after this one find it there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from griffin import ops
from griffin.bench.gpu.figure import Figure, Waits
from griffin.bench.gpu.limits import WEIGHT_BYTES
from griffin.bench.gpu.scene import Scene
from griffin.engine import Slots
from griffin.engine.graph_runner import GraphRunner
from griffin.engine.graphs import Replay
from griffin.model import Griffin, GriffinConfig
from griffin.model.packed import PackedWeight, install, packable
from griffin.ops.ahead import compile_ahead
from griffin.ops.launching import Launch, record
from griffin.ops.packed_linear import PANEL, get_layout
from griffin.ops.rg_lru import Gate

MOST_REGISTERS = 168
_THREADS = 16
_DRY = 2  # kernels of a dry run: compiling takes seconds each


def compiling(scene: Scene) -> Iterator[Figure]:
    """Compile for the GPU at hand, of a dry run two kernels for capability 9.0."""
    if find_spec("triton") is None:
        raise Waits("triton is not installed")
    dry = scene.device.type == "cpu"
    major, minor = (9, 0) if dry else torch.cuda.get_device_capability()
    threads = 1 if dry else min(_THREADS, os.cpu_count() or 1)
    command = [sys.executable, "-m", "griffin.bench.gpu.compiling", str(10 * major + minor)]
    command += [str(threads), *([str(_DRY)] if dry else [])]
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ran = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"compiling ended with {ran.returncode}: {ran.stderr[-2_000:]}")
    report = json.loads(ran.stdout)
    made = report["kernels"]
    yield Figure(
        what=f"kernels compiled, {threads} threads",
        value=report["seconds"],
        unit="s",
        wanted=None if dry else 40.0,
        less=True,
        detail={"kernels": made, "count": len(made)},
    )
    for what, most, found in (
        ("most registers of a thread", MOST_REGISTERS, max(each["registers"] for each in made)),
        ("kernels that spill", 0, sum(each["spills"] for each in made)),
    ):
        wanted = {"wanted": most, "less": True}
        yield Figure(
            what=what, value=found, unit="", detail={"capability": major + minor}, **wanted
        )


def step_launches(config: GriffinConfig, format: str, batches: Sequence[int]) -> list[Launch]:
    """Return what an engine's steps of so many rows (rising) launch, draws included, and what
    unpacks a matrix for a prompt: of tensors without values."""
    with torch.device("meta"):
        model = Griffin(config).to(torch.bfloat16).eval().requires_grad_(False)
        if format != "bf16":
            for name in packable(model):
                rows, inputs = model.get_parameter(f"{name}.weight").shape
                install(model, name, _packed(rows, inputs, format), torch.bfloat16)
    slots = Slots(config, batches[-1], dtype=torch.bfloat16, device="meta", stack=True)
    with torch.no_grad(), ops.use("triton"), record() as launches:
        GraphRunner(model, slots, _Called(), sizes=batches)
        for layer in model.modules():
            if isinstance(layer, PackedWeight) and layer.laid is not None:
                ops.look_up_rows(None, layer.laid, 1.0, torch.bfloat16)
    return launches


class _Called:
    """Graphs that are captured by making the call."""

    def capture(self, call: Replay) -> Replay:
        call()
        return call


def prompt_launches(config: GriffinConfig, length: int) -> list[Launch]:
    """Return what a prompt's convolution, attention, RG-LRU and scan launch; the last three
    backward too."""
    width, blocks = config.lru_width, config.num_gate_blocks
    size, taps = width // blocks, config.conv_width

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta").requires_grad_()

    def backward(*results: Tensor) -> None:
        torch.autograd.backward(results, [torch.empty_like(t) for t in results])

    at = torch.empty(1, length, dtype=torch.int64, device="meta")
    x, gates = empty(1, length, width), [empty(blocks, size, size) for _ in "ir"]
    one, other = (Gate(weight, empty(blocks, size)) for weight in gates)
    heads, kv, head = config.num_heads, config.num_kv_heads, config.head_dim
    window = config.attention_window_size
    with record() as launches, ops.use("triton"):
        with torch.no_grad():
            cache = empty(1, taps - 1, width)
            ops.causal_conv(x, empty(width, 1, taps), empty(width), at, cache)
        q, k, v = (empty(1, length, n, head) for n in (heads, kv, kv))
        old_k, old_v = (empty(1, window, kv, head) for _ in "kv")
        for ring in (None, (old_k, old_v)):
            plan = ops.plan_window(at, window, None if ring is None else at[:, 0])
            with torch.no_grad():
                ops.local_attention(q, k, v, plan, ring)
            backward(ops.local_attention(q, k, v, plan, ring)[0])
        h0 = empty(1, width, dtype=torch.float32)
        backward(*ops.rg_lru(x, one, other, empty(width), at, h0))
        backward(*ops.linear_scan(x, empty(1, length, width), h0))
    return launches


def all_launches() -> list[Launch]:
    """Return every kernel of both released shapes, in the forms that rows and formats ask for."""
    found: dict[str, Launch] = {}
    for name, batches in (
        ("recurrentgemma-2b", (1, 8, 32, 64)),
        ("recurrentgemma-9b", (1, 32, 64)),
    ):
        config = GriffinConfig.preset(name)
        for format in WEIGHT_BYTES:
            found |= {_key(one): one for one in step_launches(config, format, batches)}
        found |= {_key(one): one for one in prompt_launches(config, 4_096)}
    return list(found.values())


def _key(one: Launch) -> str:
    """Return what decides how a launch is compiled: of whole numbers if 1, or a multiple of 16."""
    args = [
        (arg == 1, arg % 16 == 0) if isinstance(arg, int) and not isinstance(arg, bool) else arg
        for arg in one.args
    ]
    return repr((one.name, args, one.constants, one.options))


def _packed(rows: int, inputs: int, format: str) -> ops.Packed:
    layout = get_layout(format)
    data = torch.empty(layout.data_shape(rows, inputs), dtype=torch.uint8, device="meta")
    scale = torch.empty(len(data) * PANEL, device="meta") if layout.row_scales else None
    return ops.Packed(data, scale, format, rows, inputs)


def main(capability: str, threads: str, most: str = "") -> None:
    if most:
        short = prompt_launches(GriffinConfig.preset("recurrentgemma-2b"), 4_096)
        launches = sorted(short, key=lambda one: len(one.args))[: int(most)]
    else:
        launches = all_launches()
    begun = time.perf_counter()

    def made(one: Launch) -> dict[str, Any]:
        began = time.perf_counter()
        found = compile_ahead(one, int(capability))
        return {
            "name": found.name,
            "constants": {name: str(value) for name, value in one.constants.items()},
            "registers": found.registers,
            "stack": found.stack,
            "shared": found.shared,
            "spills": found.spills(),
            "seconds": round(time.perf_counter() - began, 2),
        }

    with ThreadPoolExecutor(int(threads)) as pool:
        kernels = list(pool.map(made, launches))
    print(json.dumps({"seconds": time.perf_counter() - begun, "kernels": kernels}))


if __name__ == "__main__":
    main(*sys.argv[1:])
