"""Our own model, driven as the engine drives it: prompts in chunks, states donated, last logits
only."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from griffin.bench import work
from griffin.bench.program import Options
from griffin.loading import load_model
from griffin.model import Griffin, GriffinConfig, State
from griffin.model.screen import unembed_best

if TYPE_CHECKING:
    import numpy

# format -> how griffin.load_model is asked for it
_HOW: dict[str, dict[str, Any]] = {
    "stored": {},
    "float32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "bf16-packed": {"dtype": "bfloat16", "quantize": "bf16"},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
    "int8-screen": {"quantize": "int8", "screen": True},
    "int8-screen-drawn": {"quantize": "int8", "screen": True},
}
_DRAWN = "-drawn"  # from all tokens, so that three bits of the screen are read, not two


def load_options(format: str) -> dict[str, Any]:
    """Return how `griffin.load` is asked for a format, as --format names it."""
    return _HOW[format]


class GriffinWork:
    """What a token of a Griffin model costs, whoever computes it."""

    def __init__(
        self, config: GriffinConfig, weight_bytes: int, dtype: torch.dtype, chunk: int | None
    ) -> None:
        self.config = config
        self.weight_bytes = weight_bytes
        with torch.device("meta"):
            self._state = State.zeros(config, dtype=dtype, device="meta")
        self._chunk = chunk

    def decode_work(self, context: int, batch: int) -> dict[str, float]:
        moved = self.weight_bytes / batch + work.state_bytes(self._state, context)
        return {"bytes": moved, "operations": work.operations(self.config, context)}

    def prefill_work(self, length: int, start: int = 0) -> dict[str, float]:
        chunks = 1 if self._chunk is None else -(-length // self._chunk)
        moved = chunks * self.weight_bytes / length
        return {"bytes": moved, "operations": work.prefill_operations(self.config, length, start)}

    def vocabulary(self) -> int:
        return self.config.vocab_size


def format_of(model: Griffin) -> str:
    """Return the format of a model's matrices, as --format names it."""
    formats = {
        str(vars(module)["format"])
        for module in model.modules()
        if "format" in vars(module) and module is not model.screen
    }
    if formats:
        screen = "" if model.screen is None else "-screen"
        names = ("bf16-packed" if name == "bf16" else name for name in sorted(formats))
        return "+".join(names) + screen
    return {torch.bfloat16: "bf16"}.get(model.dtype, str(model.dtype).removeprefix("torch."))


class Ours(GriffinWork):
    """griffin."""

    resumes = True

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        how: dict[str, Any] = load_options(options.format)
        self.griffin: Griffin = load_model(options.model, device="cpu", **how).requires_grad_(False)
        self.model = Path(options.model).name
        drawn = options.format.endswith(_DRAWN)
        self._bits: Literal[2, 3] = 3 if drawn else 2
        self.format = format_of(self.griffin) + (_DRAWN if drawn else "")
        moved = work.decode_bytes(self.griffin, self._bits)
        super().__init__(self.griffin.config, moved, self.griffin.dtype, options.chunk)
        self.chunk = options.chunk
        self._memory: State | None = None
        self._hidden = torch.empty(0)
        self._next = torch.empty(0)

    def forget(self, batch: int, capacity: int) -> None:
        self._memory = None

    @torch.no_grad()
    def read(self, tokens: numpy.ndarray) -> None:
        ids = torch.from_numpy(tokens)
        for piece in ids.split(self.chunk, dim=1):
            hidden, self._memory = self.griffin.trunk(
                piece, self._memory, donate=self._memory is not None
            )
            self._hidden = hidden[:, -1].clone()
        self._choose()

    @torch.no_grad()
    def step(self) -> None:
        hidden, self._memory = self.griffin.trunk(self._next, self._memory, donate=True)
        self._hidden = hidden[:, -1]
        self._choose()

    def _choose(self) -> None:
        self._next = unembed_best(self.griffin, self._hidden, self._bits).argmax(-1, keepdim=True)

    def standing(self) -> tuple[State, int]:
        """Return a copy of the state of one sequence, and the token that comes next."""
        assert self._memory is not None
        return self._memory.clone(), int(self._next[0, 0])

    def resume(self) -> dict[str, float]:
        """Save the state, load it, take a step; return seconds of each and the file's bytes."""
        assert self._memory is not None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            begun = time.perf_counter()
            self._memory.save(path)
            saved = time.perf_counter()
            self._memory = State.load(path)
            loaded = time.perf_counter()
            self.step()
            stepped = time.perf_counter()
            size = path.stat().st_size
        return {
            "save": saved - begun,
            "load": loaded - saved,
            "step": stepped - loaded,
            "bytes": size,
        }
