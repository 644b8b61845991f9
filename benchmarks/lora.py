"""Steps of a LoRA on a frozen base as `griffin finetune` takes them: memory, time, processor time.

The base lies as the engine has it: packed as it is stored, bfloat16 in the kernels' order. The peak
is that of the whole process, loading included.
"""

from __future__ import annotations

import statistics
import time

import torch

from griffin import checkpoints
from griffin.adapters import Adapter, LoraConfig, adapt
from griffin.bench.measurement import Measurement, Report, measured
from griffin.bench.memory import resident
from griffin.bench.profile import Profile
from griffin.bench.rates import SECONDS, matrix_rate
from griffin.bench.training import Learner, Setting
from griffin.bench.work import matrix_shapes, training_operations
from griffin.model import Griffin
from griffin.model.packed import packed_format
from griffin.quant import fastest_layout
from griffin.train.allocator import return_large_blocks
from griffin.train.objective import Objective


def load_base(name: str, quantize: str | None = None) -> Griffin:
    """Return a model to be adapted: packed, as `griffin.load` would answer with it."""
    source = checkpoints.open(name)
    if quantize is None and source.quantization is None:
        quantize = fastest_layout(source.own_dtype, "cpu")
    return checkpoints.load_model(source, quantize=quantize)


def lora_learner(model: Griffin, rank: int, keep_every: int) -> Learner:
    """Return a frozen model with a new adapter of every linear layer, and the step of a run."""
    shape, config = model.config, LoraConfig(rank=rank)
    new = Adapter.new("lora", config, shape, torch.Generator().manual_seed(0))
    adapt(model, new, dtype=torch.float32, train=True)
    model.keep_every = keep_every
    objective = Objective(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    base = sum(outputs * inputs * count for outputs, inputs, count in matrix_shapes(shape))
    base += shape.vocab_size * shape.width

    def operations(length: int) -> float:
        # A frozen matrix is multiplied by once forward and once back.
        return training_operations(shape, 0, length) + 4 * base + 6 * trained

    return Learner(
        "griffin, LoRA",
        f"{base / 1e6:,.0f}M, {trained / 1e6:.1f}M of rank {rank}",
        model,
        lambda batch: objective(batch.tokens, batch.targets, batch.segment_pos, batch.mask)[0],
        operations,
    )


def lora(
    report: Report,
    model: Griffin,
    setting: Setting,
    *,
    rank: int = 16,
    keep_every: int = 1,
    rounds: int = 1,
    profile: bool = False,
    probe: float = SECONDS,
) -> Measurement:
    """Take steps on random rows of one document each, the matrix products' rate before each.

    Every step counts, the first too. Appended to `report`, with seconds of the processor and bytes
    before the first step in its notes.
    """
    torch.set_num_threads(setting.threads)
    if keep_every:
        return_large_blocks()  # as a run does
    format = packed_format(model) or str(model.dtype).removeprefix("torch.")
    learner = lora_learner(model, rank, keep_every)
    before, shapes = resident(), list(matrix_shapes(model.config))
    rates, samples, processor, loss = list[float](), list[float](), list[float](), 0.0
    for number in range(rounds):
        rates.append(matrix_rate(shapes, min(setting.tokens, 4096), "float32", probe))
        batch = setting.batch(model.config.vocab_size, number)
        begun, cpu = time.perf_counter(), time.process_time()
        loss = learner.step(batch)
        processor.append(time.process_time() - cpu)
        samples.append(setting.tokens / (time.perf_counter() - begun))
    memory, rate = resident(), statistics.median(rates)
    report.rates["float32 product"] = rate
    found = measured(
        "train",
        {
            "program": learner.name,
            "model": learner.shape,
            "format": format,
            "threads": setting.threads,
            "batch": setting.rows,
            "context": setting.length,
        },
        samples,
        {"bytes": 0.0, "operations": learner.operations(setting.length)},
        None,
        rate,
        memory,
        loss=loss,
    )
    if profile:
        batch = setting.batch(model.config.vocab_size)
        found.groups.update(Profile.of(lambda: learner.step(batch)).groups)
    seconds = statistics.median(processor)
    report.notes.append(
        f"{format}: {setting.tokens / seconds:,.1f} tokens a second of the processor"
        f" ({seconds:,.1f} s a step); {before['resident'] / 1e9:.2f} GB resident before the first"
        f" step, {before['peak'] / 1e9:.2f} GB at most while loading,"
        f" {memory['peak'] / 1e9:.2f} GB at most"
    )
    report.measurements.append(found)
    return found
