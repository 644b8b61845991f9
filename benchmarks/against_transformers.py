"""Time a checkpoint in griffin and in transformers, in one process, taking turns.

    griffin convert --random recurrentgemma-2b random-2b
    python benchmarks/against_transformers.py random-2b --out docs/benchmarks/torch-2b.json

Work: load, then rounds of a prefill of `--prompt` tokens (logits of the last position only) and `--decode`
greedy tokens after it, each program reading the same ids. Medians of the rounds; memory is what is resident
at most while loading and prefilling once, each program alone in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]


def griffin_program(path: str) -> tuple[Callable[[], None], Step]:
    """Return `forget` and `read`: ids (1, T) -> the last position's logits (1, V)."""
    from griffin.checkpoints import load_model

    model = load_model(path).requires_grad_(False)
    memory: dict[str, Any] = {"state": None}

    def read(tokens: Tensor) -> Tensor:
        hidden, memory["state"] = model.trunk(tokens, memory["state"])
        return model.unembed(hidden[:, -1])

    return lambda: memory.update(state=None), read


def transformers_program(path: str) -> tuple[Callable[[], None], Step]:
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).requires_grad_(False)
    memory: dict[str, Any] = {}

    def forget() -> None:
        memory.update(cache=DynamicCache(config=model.config), seen=0)

    def read(tokens: Tensor) -> Tensor:
        positions = torch.arange(memory["seen"], memory["seen"] + tokens.shape[1])[None]
        memory["seen"] += tokens.shape[1]
        out = model(
            tokens,
            position_ids=positions,
            past_key_values=memory["cache"],
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]

    forget()
    return forget, read


PROGRAMS = {"griffin": griffin_program, "transformers": transformers_program}


def measure(forget: Callable[[], None], read: Step, prompt: Tensor, decode: int) -> dict[str, float]:
    forget()
    begun = time.perf_counter()
    logits = read(prompt)
    filled = time.perf_counter()
    for _ in range(decode):
        logits = read(logits.argmax(-1, keepdim=True))
    ended = time.perf_counter()
    return {
        "prefill_tokens_per_second": prompt.shape[1] / (filled - begun),
        "decode_tokens_per_second": decode / (ended - filled),
    }


def resident(name: str, path: str, length: int) -> int:
    """Peak resident bytes of one program that loads and prefills once, in a process of its own."""
    command = [sys.executable, __file__, path, "--prompt", str(length), "--memory-of", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", choices=PROGRAMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    prompt = torch.randint(10, 250_000, (1, args.prompt), generator=torch.Generator().manual_seed(0))
    if args.memory_of:
        forget, read = PROGRAMS[args.memory_of](args.model)
        forget()
        read(prompt)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return

    # Before anything is loaded here: a child's peak is counted from that of the process that started it.
    memory = {name: resident(name, args.model, args.prompt) for name in PROGRAMS}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in PROGRAMS}
    programs, load = {}, {}
    for name, start in PROGRAMS.items():
        begun = time.perf_counter()
        programs[name] = start(args.model)
        load[name] = time.perf_counter() - begun
        measure(*programs[name], prompt, 1)  # pages arrive, caches warm
    for _ in range(args.rounds):
        for name, program in programs.items():
            rounds[name].append(measure(*program, prompt, args.decode))
    del programs

    results = []
    for name in PROGRAMS:
        median = {key: statistics.median(r[key] for r in rounds[name]) for key in rounds[name][0]}
        results.append(
            {
                "what": name,
                "load_seconds": load[name],
                **median,
                "peak_resident_bytes": memory[name],
            }
        )
    report = {
        "command": " ".join(sys.argv),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "machine": f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}",
        "prompt": args.prompt,
        "results": results,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
