"""Induction heads: what followed a mark once, somewhere in a text, is asked for at its end.

The task and its sizes are the Griffin paper's (arXiv:2402.19427, section 6.2 and appendix H): five
blocks of width 64, a vocabulary of 16, texts of at most 256 in training (shorter ones at first:
STAGES), longer ones afterwards. Griffin has one block of local attention, the third; Hawk has none;
the transformer's blocks all attend to the whole text, however long. Every model takes the same
steps on the same rows; its learning rate is the best of three for the first seed, by how well it
answers at the length of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.proofs.drawing import draw_right
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
# Steps at each length. At 256 from the first step on Griffin has learnt nothing after 1,500, at
# either of the lower rates: one answer a row tells too little of where to look for it.
STAGES = ((16, 300), (64, 300), (LENGTH, 900))
ROWS = 16
_PIECE = 4096  # tokens of a call where a long text is read
# Attention over the whole text costs the square of its length: that far and no further.
MOST_OF_ALL = 16_384

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
    name: str,
    rate: float,
    seed: int,
    stages: Sequence[tuple[int, int]] = STAGES,
    say: Callable[[str], object] = str,
) -> Griffin:
    """Return a model that was taught the answers. stages: (length, steps) of each."""
    each = [length for length, steps in stages for _ in range(steps)]
    recipe = TrainRecipe(steps=len(each), rows=ROWS, length=LENGTH, learning_rate=rate, seed=seed)
    model = new_model(name, seed)
    optimizer = make_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(1000 + seed)
    for step, length in enumerate(each):
        tokens, answers = rows(ROWS, length, generator)
        hidden, _ = model.trunk(tokens)
        loss = torch.nn.functional.cross_entropy(model.unembed(hidden[:, -1]), answers)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimizer.step()
        optimizer.zero_grad()
        if step % 250 == 249:
            say(f"step {step + 1:,} of {len(each):,}, loss {loss.item():.4f}")
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
    return max(16, min(512, (1 << 18) // length))


def compare(
    out: Path,
    say: Callable[[str], object],
    *,
    models: Sequence[str] = tuple(MODELS),
    lengths: Sequence[int] = LENGTHS,
    seeds: Sequence[int] = SEEDS,
    rates: Sequence[float] = RATES,
    stages: Sequence[tuple[int, int]] = STAGES,
    texts: Callable[[int], int] = texts_of,
) -> dict[str, Any]:
    """Run what `out` does not hold yet of these models, and return all of it.

    results.json is kept after every training and every asking; weights lie beside it. Long texts
    are asked about at the best rate alone.
    """
    torch.set_num_threads(1)
    runs = Runs(out, stages=stages, lengths=lengths)

    def trained(name: str, rate: float, seed: int) -> dict[str, Any]:
        """Train, and ask at the length of training."""
        told = f"{name}, rate {rate:g}, seed {seed}"

        def make() -> dict[str, Any]:
            model = train(name, rate, seed, stages, lambda line: say(f"{told}: {line}"))
            save_file(model.state_dict(), _weights(out, name, rate, seed))
            found = right(model, LENGTH, texts(LENGTH))
            say(f"{told}: {found:.0%} of texts of {LENGTH:,}, as in training")
            return {"right": found, "parameters": sum(p.numel() for p in model.parameters())}

        return runs.get({"trained": name, "rate": rate, "seed": seed}, make)

    def asked(name: str, rate: float, seed: int) -> None:
        """Ask what was trained at every length."""
        trained(name, rate, seed)
        told = f"{name}, rate {rate:g}, seed {seed}"

        def make() -> dict[str, Any]:
            weights = load_file(_weights(out, name, rate, seed))
            found = dict[str, float]()
            for length in lengths:
                if name == "MQA" and length > MOST_OF_ALL:
                    continue
                # The window of attention over everything holds the text that is asked about.
                model = new_model(name, seed, max(length, LENGTH) if name == "MQA" else 0)
                model.load_state_dict(weights)
                found[str(length)] = right(model, length, texts(length))
                say(f"{told}: {found[str(length)]:.0%} of texts of {length:,}")
            return {"right": found}

        runs.get({"asked": name, "rate": rate, "seed": seed}, make)

    for name in models:
        best = max(rates, key=lambda rate: trained(name, rate, seeds[0])["right"])
        for seed in seeds:
            asked(name, best, seed)
    draw_right(
        {name: [one["right"] for one in of] for name in MODELS if (of := _asked(runs.found, name))},
        LENGTH,
        out / "right.png",
    )
    return runs.found


def _weights(out: Path, name: str, rate: float, seed: int) -> Path:
    return out / f"{name}-{rate:g}-{seed}.safetensors"


def _asked(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return what a model was asked, by seed."""
    return [one for one in found["runs"] if one.get("asked") == name]


def table(found: dict[str, Any]) -> str:
    """Return the right answers by length as Markdown: at the best rate, the mean of the seeds."""
    asked = {name: of for name in MODELS if (of := _asked(found, name))}
    lengths = [*dict.fromkeys(length for of in asked.values() for length in of[0]["right"])]
    lines = ["| | rate | " + " | ".join(f"{int(length):,}" for length in lengths) + " |"]
    lines.append("|---" * (len(lengths) + 2) + "|")
    for name, of in asked.items():
        cells = [
            f"{sum(one['right'][length] for one in of) / len(of):.0%}"
            if length in of[0]["right"]
            else ""
            for length in lengths
        ]
        lines.append(f"| {name} | {of[0]['rate']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
