"""What a sitting measures, and on what: the true shapes on a GPU, or toy ones on the CPU."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from griffin import ops
from griffin.bench.gpu.limits import H200, Ceiling
from griffin.bench.gpu.machines import Interpreted, check_kernels
from griffin.engine import Slots
from griffin.engine.graph_runner import GraphRunner
from griffin.engine.graphs import CudaGraphs, Graphs
from griffin.model import Griffin, GriffinConfig, State
from griffin.model.init import init_weights
from griffin.model.packed import install, packable

_TOY = GriffinConfig(
    vocab_size=32,
    width=16,
    mlp_width=16,
    lru_width=16,
    num_heads=2,
    num_gate_blocks=2,
    block_types=("recurrent", "attention"),
    attention_window_size=16,
    logits_soft_cap=30.0,
    scale_embeddings=True,
    tie_embeddings=True,
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much each row does.

    batches:  rows of a decode step. large_batches: of the large model's.
    contexts: tokens read before a step, one short and one long.
    prompts:  tokens of a prompt; the longest comes last in a sitting.
    chunk:    tokens of a prompt in a call.
    requests, prompt, answer, slots: of the engine's row.
    equal:    rows that runner and model are compared with, over `steps` tokens.
    scan:     tokens of the scan alone. train: tokens of a training step's row.
    copy:     bytes of the copies. product: side of the matrix products.
    spend:    seconds for one timing.
    """

    batches: tuple[int, ...]
    large_batches: tuple[int, ...]
    contexts: tuple[int, int]
    prompts: tuple[int, int]
    longest: int
    chunk: int
    requests: int
    prompt: int
    answer: int
    slots: int
    equal: tuple[int, ...]
    steps: int
    scan: int
    train: tuple[int, ...]
    copy: int
    product: int
    spend: float


TRUE_SIZES = Sizes(
    batches=(1, 8, 32, 128, 256, 512, 1024),
    large_batches=(1, 32, 256),
    contexts=(2_048, 100_000),
    prompts=(4_096, 65_536),
    longest=1_000_000,
    chunk=4_096,
    requests=512,
    prompt=512,
    answer=128,
    slots=256,
    equal=(1, 8, 37, 256),
    steps=64,
    scan=8_192,
    train=(2_048, 8_192, 32_768),
    copy=4 << 30,
    product=8_192,
    spend=0.3,
)
DRY_SIZES = Sizes(
    batches=(2,),
    large_batches=(1,),
    contexts=(16, 100),
    prompts=(8, 24),
    longest=40,
    chunk=8,
    requests=2,
    prompt=6,
    answer=2,
    slots=2,
    equal=(1, 2),
    steps=2,
    scan=24,
    train=(16,),
    copy=1 << 20,
    product=64,
    spend=0.002,
)


class Scene:
    """Models with random weights on a device, and a clock for it.

    dry:     toy shapes: what comes out has the form of a result and means nothing.
    device:  where they are; if omitted the CPU of a dry run, and else the GPU.
    ceiling: what limits are reckoned from; the row of ceilings puts in what it measured.
    """

    def __init__(self, dry: bool, device: str | None = None) -> None:
        self.dry = dry
        self.device = torch.device(device or ("cpu" if dry else "cuda"))
        self.sizes = DRY_SIZES if dry else TRUE_SIZES
        self.ceiling: Ceiling = H200
        self.small = _TOY if dry else GriffinConfig.preset("recurrentgemma-2b")
        self.large = _TOY if dry else GriffinConfig.preset("recurrentgemma-9b")
        self._held: tuple[GriffinConfig, str, Griffin] | None = None

    def model(self, config: GriffinConfig, format: str) -> Griffin:
        """Return a model in bfloat16 with random weights, its matrices in a format of
        `limits.WEIGHT_BYTES`; the last one is kept, another takes its place."""
        if self._held is not None and self._held[:2] == (config, format):
            return self._held[2]
        self.forget()
        with torch.device("meta"):
            model = Griffin(config).to(torch.bfloat16)
        model = model.to_empty(device=self.device).eval().requires_grad_(False)
        generator = torch.Generator(self.device).manual_seed(0)
        init_weights(model, config, generator)
        if format != "bf16":
            with torch.no_grad():
                for name in packable(model):
                    weight = model.get_parameter(f"{name}.weight")
                    install(model, name, ops.pack(weight, format), torch.bfloat16)
        self._held = config, format, model
        return model

    def name(self, config: GriffinConfig) -> str:
        """Return what figures call one of the two shapes."""
        return "toy" if self.dry else "2B" if config is self.small else "9B"

    def forget(self) -> None:
        """Give the memory of the model back."""
        self._held = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def state(self, config: GriffinConfig, rows: int, context: int) -> State:
        """Return random states that look as if `context` tokens had been read."""
        state = State.zeros(config, rows, dtype=torch.bfloat16, device=self.device)
        fill(state, context)
        return state

    def graphs(self) -> Graphs:
        """Return what captures steps: CUDA graphs; on the CPU Triton's interpreter stands in."""
        check_kernels(self.device.type == "cpu")
        return CudaGraphs(self.device) if self.device.type == "cuda" else Interpreted()

    def runner(self, model: Griffin, sizes: Sequence[int]) -> tuple[GraphRunner, Slots]:
        """Return a runner with graphs for so many rows, rising, and its slots, randomly filled."""
        count = sizes[-1]
        slots = Slots(model.config, count, dtype=model.dtype, device=model.device, stack=True)
        with torch.no_grad():
            runner = GraphRunner(model, slots, self.graphs(), sizes=sizes)
            fill(slots.view(0, count), 0)
        return runner, slots

    def tokens(self, config: GriffinConfig, rows: int, length: int, seed: int = 0) -> torch.Tensor:
        """Return random ids (rows, length) on the device."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(config.vocab_size, (rows, length), generator=generator)
        return ids.to(self.device)

    def wait(self) -> None:
        """Wait until the device has done what it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def seconds(self, call: Callable[[], Any], spend: float | None = None) -> float:
        """Return the median seconds of a call, after one that is not counted.

        By events around each call, with all of them queued; of a dry run by the clock.
        spend: seconds it may take in all, about. A dry run makes one call.
        """
        if self.dry:
            return _took(call)
        spend = self.sizes.spend if spend is None else spend
        call()
        self.wait()
        begun = time.perf_counter()
        call()
        self.wait()
        count = max(3, min(1_000, int(spend / max(time.perf_counter() - begun, 1e-6))))
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        self.wait()
        pairs = itertools.pairwise(marks)
        return statistics.median(one.elapsed_time(other) / 1e3 for one, other in pairs)


def fill(state: State, context: int) -> None:
    """Fill states with random numbers, as if `context` tokens had been read."""
    for layer in state.layers:
        for tensor in layer:
            tensor.normal_()
    state.pos.fill_(context)


def _took(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
