"""llama.cpp on Gemma, what a user of a CPU would run instead of a Griffin; through its C
interface."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from griffin.bench.program import Options

if TYPE_CHECKING:
    import numpy

_BATCH = 512  # tokens a call takes, its own default (n_ubatch)


class LlamaCpp:
    """A rival whose cache grows: 16-bit keys and values, flash attention where it chooses to."""

    resumes = True

    def __init__(self, options: Options) -> None:
        # Optional packages, without types.
        llama_cpp = self._api = cast(Any, import_module("llama_cpp"))
        reader = import_module("gguf").GGUFReader
        self._threads = options.threads
        path = Path(options.model)
        file = reader(path)
        tensors = {t.name: t for t in file.tensors}
        self.weight_bytes = sum(int(t.n_bytes) for t in file.tensors)
        self._weights = sum(int(t.n_elements) for t in file.tensors if len(t.shape) > 1)
        self._head = int(tensors["token_embd.weight"].n_elements)
        self._vocabulary = int(tensors["token_embd.weight"].shape[1])

        def field(key: str) -> int:
            found = file.get_field(f"gemma.{key}")
            if found is None:
                raise ValueError(f"{path} is not a Gemma: it has no gemma.{key}")
            return int(found.contents())

        self._layers = field("block_count")
        self._q_width = field("attention.head_count") * field("attention.key_length")
        # Keys and values of a token, two bytes each.
        kv = field("attention.head_count_kv") * field("attention.key_length")
        self._token_bytes = self._layers * 2 * kv * 2
        self.model = path.name
        self.format = options.format

        llama_cpp.llama_backend_init()
        how = llama_cpp.llama_model_default_params()
        how.n_gpu_layers = 0
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), how)
        if not self._model:
            raise ValueError(f"llama.cpp cannot read {path}")
        self._context: Any = None
        self.forget(1, _BATCH)

    def forget(self, batch: int, capacity: int) -> None:
        if self._context:
            self._api.llama_free(self._context)
        self._context = self._open(batch, capacity)
        self._batch, self._seen, self._next = batch, 0, [0] * batch

    def reserve(self, capacity: int) -> None:
        """Move the sequences into a larger cache: one is only as large as what has been read
        needs."""
        old, new = self._context, self._open(self._batch, capacity)
        for row in range(self._batch):
            size = self._api.llama_state_seq_get_size(old, row)
            buffer = (ctypes.c_uint8 * size)()
            took = self._api.llama_state_seq_get_data(old, buffer, size, row)
            if not self._api.llama_state_seq_set_data(new, buffer, took, row):
                raise RuntimeError(f"llama.cpp did not take back its own state of {took} bytes")
        self._api.llama_free(old)
        self._context = new

    def read(self, tokens: numpy.ndarray) -> None:
        length = tokens.shape[1]
        for row in range(self._batch):
            for begin in range(0, length, _BATCH):
                piece = tokens[row, begin : begin + _BATCH]
                last = begin + len(piece) == length
                places = range(self._seen + begin, self._seen + begin + len(piece))
                wanted = [last and place == places[-1] for place in places]
                self._decode(piece.tolist(), places, [row] * len(piece), wanted)
            self._next[row] = self._best(-1)
        self._seen += length

    def step(self) -> None:
        count = self._batch
        self._decode(self._next, [self._seen] * count, range(count), [True] * count)
        self._next = [self._best(row) for row in range(count)]
        self._seen += 1

    def put(self, row: int, place: int, tokens: Sequence[int]) -> None:
        """Read tokens of a sequence, from a place of it on."""
        for begin in range(0, len(tokens), _BATCH):
            piece = tokens[begin : begin + _BATCH]
            places = range(place + begin, place + begin + len(piece))
            self._decode(piece, places, [row] * len(piece), [False] * len(piece))

    def choices(self, row: int, place: int, tokens: Sequence[int]) -> Iterator[int]:
        """Read tokens of a sequence in one call; yield the most probable id after each."""
        count = len(tokens)
        self._decode(tokens, range(place, place + count), [row] * count, [True] * count)
        for number in range(count):
            yield self._best(number)

    def go_back(self, row: int, place: int) -> None:
        """Forget what a sequence has from a place on."""
        memory = self._api.llama_get_memory(self._context)
        if not self._api.llama_memory_seq_rm(memory, row, place, -1):
            raise RuntimeError(f"llama.cpp could not go back to token {place}")

    def decode_work(self, context: int, batch: int) -> dict[str, float]:
        moved = self.weight_bytes / batch + self._token_bytes * (context + 1)
        return {"bytes": moved, "operations": self._operations(context)}

    def prefill_work(self, length: int, start: int = 0) -> dict[str, float]:
        chunks = -(-length // _BATCH)
        moved = chunks * (self.weight_bytes + self._token_bytes * (start + length / 2)) / length
        head = 2 * self._head
        operations = self._operations(start + (length - 1) / 2) - head + head / length
        return {"bytes": moved, "operations": operations}

    def vocabulary(self) -> int:
        return self._vocabulary

    def _operations(self, context: float) -> float:
        return 2 * (self._weights + 2 * self._layers * self._q_width * (context + 1))

    def _open(self, batch: int, capacity: int) -> Any:
        how = self._api.llama_context_default_params()
        how.n_ctx = batch * -(-capacity // 256) * 256
        how.n_batch = how.n_ubatch = _BATCH
        how.n_seq_max = batch
        how.n_threads = how.n_threads_batch = self._threads
        how.no_perf = True
        context = self._api.llama_init_from_model(self._model, how)
        if not context:
            raise MemoryError(f"llama.cpp has no memory for {batch} sequences of {capacity} tokens")
        return context

    def _decode(
        self,
        tokens: Sequence[int],
        places: Sequence[int],
        rows: Sequence[int],
        wanted: Sequence[bool],
    ) -> None:
        """Read tokens, each at a place of a row; compute the logits after those that are wanted."""
        batch = self._api.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for number, (token, place, row, want) in enumerate(
                zip(tokens, places, rows, wanted, strict=True)
            ):
                batch.token[number] = token
                batch.pos[number] = place
                batch.n_seq_id[number] = 1
                batch.seq_id[number][0] = row
                batch.logits[number] = want
            if code := self._api.llama_decode(self._context, batch):
                raise RuntimeError(f"llama.cpp could not read {len(tokens)} tokens (code {code})")
        finally:
            self._api.llama_batch_free(batch)

    def _best(self, place: int) -> int:
        import numpy

        logits = self._api.llama_get_logits_ith(self._context, place)
        return int(numpy.ctypeslib.as_array(logits, shape=(self._vocabulary,)).argmax())
