"""Induction heads: what followed a mark once, somewhere in a text, is asked for at its end.

The task and its sizes are the Griffin paper's (arXiv:2402.19427, section 6.2 and appendix H): five
blocks of width 64, a vocabulary of 16, texts of 256 in training, longer ones afterwards. Griffin
has one block of local attention, the third; Hawk has none; the transformer's blocks all attend to
the whole text, however long. Every model takes the same steps on the same rows; its learning rate
is the best of three for the first seed, by how well it answers at the length of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.proofs.runs import Runs
from griffin.model import Griffin, GriffinConfig
from griffin.model.config import BlockType
from griffin.model.init import init_weights
from griffin.train.optim import learning_rate, make_optimizer
from griffin.train.recipe import TrainRecipe

MARK = 15
LENGTH = 256
LENGTHS = tuple(64 << n for n in range(12))  # 64 to 131,072
RATES = (1e-3, 3e-3, 1e-2)
SEEDS = (0, 1, 2)
STEPS, ROWS = 1500, 16
_PIECE = 4096  # tokens of a call where a long text is read
# Attention over the whole text costs the square of its length: that far and no further.
MOST_OF_ALL = 32_768

_R: BlockType = "recurrent"
_A: BlockType = "attention"
MODELS: dict[str, tuple[tuple[BlockType, ...], int]] = {
    "Griffin": ((_R, _R, _A, _R, _R), 128),
    "Hawk": ((_R, _R, _R, _R, _R), 128),
    "MQA": ((_A, _A, _A, _A, _A), LENGTH),
}


def new_model(name: str, seed: int, window: int = 0) -> Griffin:
    """Return a model of random weights. window: of its attention, in place of its own."""
    blocks, own = MODELS[name]
    config = GriffinConfig(
        vocab_size=16,
        width=64,
        mlp_width=192,
        lru_width=64,
        num_heads=4,
        num_gate_blocks=4,
        block_types=blocks,
        attention_window_size=window or own,
    )
    model = Griffin(config)
    init_weights(model, config, torch.Generator().manual_seed(seed))
    return model


def rows(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw texts (count, length) with two marks each, the second at the end, and what followed the
    first: (count,), the answers."""
    tokens = torch.randint(MARK, (count, length), generator=generator)
    at = torch.randint(length - 2, (count,), generator=generator)
    each = torch.arange(count)
    tokens[each, at] = MARK
    tokens[:, -1] = MARK
    return tokens, tokens[each, at + 1]


def train(
    name: str, rate: float, seed: int, steps: int = STEPS, say: Callable[[str], object] = str
) -> Griffin:
    """Return a model that was taught the answers at the length of training."""
    recipe = TrainRecipe(steps=steps, rows=ROWS, length=LENGTH, learning_rate=rate, seed=seed)
    model = new_model(name, seed)
    optimizer = make_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(1000 + seed)
    for step in range(steps):
        tokens, answers = rows(ROWS, LENGTH, generator)
        hidden, _ = model.trunk(tokens)
        loss = torch.nn.functional.cross_entropy(model.unembed(hidden[:, -1]), answers)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimizer.step()
        optimizer.zero_grad()
        if step % 250 == 249:
            say(f"step {step + 1:,} of {steps:,}, loss {float(loss):.4f}")
    return model


@torch.no_grad()
def right(model: Griffin, length: int, texts: int) -> float:
    """Return the share of texts of a length whose answer the model finds the most probable."""
    generator = torch.Generator().manual_seed(length)
    found = 0
    for _ in range(0, texts, 16):
        tokens, answers = rows(min(16, texts), length, generator)
        state, hidden = None, torch.empty(0)
        for piece in tokens.split(_PIECE, 1):
            hidden, state = model.trunk(piece, state, donate=state is not None)
        found += int((model.unembed(hidden[:, -1]).argmax(1) == answers).sum())
    return found / (-(-texts // 16) * min(16, texts))


def texts_of(length: int) -> int:
    """Return how many texts of a length are asked about: fewer of long ones."""
    return max(16, min(512, (1 << 20) // length))


def compare(
    out: Path,
    say: Callable[[str], object],
    *,
    lengths: Sequence[int] = LENGTHS,
    seeds: Sequence[int] = SEEDS,
    rates: Sequence[float] = RATES,
    steps: int = STEPS,
    texts: Callable[[int], int] = texts_of,
) -> dict[str, Any]:
    """Run what `out`/results.json does not hold yet, and return all of it. Kept after every run."""
    torch.set_num_threads(1)
    runs = Runs(out, steps=steps, lengths=lengths)
    total = len(MODELS) * (len(rates) + len(seeds) - 1)

    def answer(name: str, rate: float, seed: int) -> dict[str, Any]:
        told = f"run {len(runs.found['runs']) + 1} of {total}: {name}, rate {rate:g}, seed {seed}"
        model = train(name, rate, seed, steps, lambda line: say(f"{told}: {line}"))
        found = dict[str, float]()
        for length in lengths:
            if name == "MQA":  # its window holds the text that is asked about
                if length > MOST_OF_ALL:
                    continue
                opened = new_model(name, seed, max(length, LENGTH))
                opened.load_state_dict(model.state_dict())
                model = opened
            found[str(length)] = right(model, length, texts(length))
            say(f"{told}: {found[str(length)]:.0%} of texts of {length:,}")
        return {"right": found, "parameters": sum(p.numel() for p in model.parameters())}

    def run(name: str, rate: float, seed: int) -> dict[str, Any]:
        key = {"model": name, "rate": rate, "seed": seed}
        return runs.get(key, partial(answer, name, rate, seed))

    for name in MODELS:
        at = str(LENGTH)
        best = max(rates, key=lambda rate: run(name, rate, seeds[0])["right"][at])
        for seed in seeds[1:]:
            run(name, best, seed)
    return runs.found


def table(found: dict[str, Any]) -> str:
    """Return the right answers by length as Markdown: at the best rate, the mean of the seeds."""
    lengths = list(dict.fromkeys(length for one in found["runs"] for length in one["right"]))
    lines = ["| | rate | " + " | ".join(f"{int(length):,}" for length in lengths) + " |"]
    lines.append("|---" * (len(lengths) + 2) + "|")
    for name in MODELS:
        of = [one for one in found["runs"] if one["model"] == name]
        rate = of[-1]["rate"]  # only the best of them runs with all seeds
        same = [one["right"] for one in of if one["rate"] == rate]
        cells = [
            f"{sum(each[length] for each in same) / len(same):.0%}" if length in same[0] else ""
            for length in lengths
        ]
        lines.append(f"| {name} | {rate:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
