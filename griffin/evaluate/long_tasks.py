"""Long texts that are made up as tasks of lm-eval: griffin_niah, ..., and griffin_long for all.

The tasks' files lie in `FOLDER`: lm-eval knows them by `TaskManager(include_path=FOLDER)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from griffin.evaluate.recall import sentences_of, sized
from griffin.loading import load_tokenizer

FOLDER = Path(__file__).parent.parent / "data" / "tasks"
LENGTHS = (1024, 2048, 4096, 8192)


def documents(
    *,
    task: str,
    tokenizer: str | None = None,
    pretrained: str | None = None,
    model: str | None = None,
    max_seq_lengths: Sequence[int] = LENGTHS,
    questions: int = 20,
    seed: int = 1234,
    prose: str | None = None,
    **others: Any,
) -> dict[str, datasets.Dataset]:
    """Return the questions of a task, as lm-eval asks for them with a task's metadata.

    task:            one of `recall.TASKS`.
    tokenizer, ...:  the first that is given says in whose tokens a text is long: a model's name or
                     folder, or a tokenizer's.
    max_seq_lengths: tokens of a text with its answer, at most. questions: of each length. seed:
                     with the same, the same questions in every process.
    prose:           a file of sentences for `niah`; made up without one.
    others:          metadata of other tasks; passed over.
    Raises ValueError where no tokenizer is named, and as `sized` does.
    """
    if not (name := tokenizer or pretrained or model):
        raise ValueError(
            f"griffin_{task} makes texts of so many tokens, and nobody says whose: give"
            ' --metadata \'{"tokenizer": "nano"}\', a model\'s name or folder'
        )
    text = load_tokenizer(name)
    sentences = [] if prose is None else sentences_of(Path(prose).read_text(encoding="utf-8"))
    rows = []
    for tokens in max_seq_lengths:
        for number in range(questions):
            asked = sized(
                task,
                tokens,
                number,
                seed=seed,
                count=lambda s: len(text.encode(s)),
                prose=sentences,
            )
            rows.append({"prompt": asked.prompt, "answer": asked.answer, "tokens": tokens})
    return {"test": datasets.Dataset.from_list(rows)}


def process_results(
    doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]
) -> dict[str, float]:
    """Return whether greedy decoding writes the answer: of all texts, and of those so long."""
    right = float(results[0][1])
    return {"acc": right, str(doc["tokens"]): right}
