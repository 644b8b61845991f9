"""A file of requests on Ray Data: any number of models, on any number of machines, one file.

    python -m examples.ray_data.answer prompts.jsonl answers.jsonl model=nano models=2

What a line may be, and what is written for it, is what `griffin batch` says: OpenAI's batch lines
or prompts in, OpenAI's batch results out, the same answers to the bit. So is what becomes of a run
that was stopped: the next one asks what is not in the file yet.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ray
from ray.data import Dataset

ARGUMENTS = {
    "model": "nano",  # folder, archive, Hub repository or bundled name
    "quantize": "",  # int8 or int4: round the weights while loading
    "models": "1",  # how many work at a time, each with its own copy
    "cpus": "1",  # of each: Ray's share and the threads of its model
    "slots": "16",  # answers at a time, of each
}


class Answers:
    """One model in one of Ray's actors; several batches are under way in it at a time."""

    def __init__(self, given: dict[str, str]) -> None:
        import torch

        import griffin
        from griffin.batch import make_service

        torch.set_num_threads(max(1, int(float(given["cpus"]))))
        llm = griffin.load(given["model"], device="cpu", quantize=given["quantize"] or None)
        self._service = make_service(llm, name=given["model"], slots=int(given["slots"]))
        self._stack = AsyncExitStack()  # never left: the actor's process ends with its work
        self._app: Any = None

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, list[str]]]:
        """Answer the lines of a batch. batch: columns `number` and `text`."""
        from griffin.batch import opened

        if self._app is None:
            self._app = await self._stack.enter_async_context(opened(self._service))
        lines = zip(batch["number"], batch["text"], strict=True)
        results = await asyncio.gather(*(self._answer(int(n), str(text)) for n, text in lines))
        yield {"text": [json.dumps(result, ensure_ascii=False) for result in results]}

    async def _answer(self, number: int, text: str) -> dict[str, Any]:
        from griffin.batch import parse_line, post, result_line

        line = parse_line(text.encode(), number)
        return result_line(line, *await post(self._app, line.path, line.body))


def answer(requests: Dataset, arguments: dict[str, str]) -> Dataset:
    """Return the answers to requests, a JSON text each in the column `text`, in any order.

    requests:  columns `number` (of the line, counted from 1) and `text`, a line that `parse_line`
               takes.
    arguments: some of ARGUMENTS, as text; ValueError for others.
    """
    unknown = sorted(arguments.keys() - ARGUMENTS.keys())
    if unknown:
        raise ValueError(
            f"there is no argument {', '.join(unknown)}; there are {', '.join(ARGUMENTS)}"
        )
    given = {**ARGUMENTS, **arguments}
    slots = int(given["slots"])
    return requests.map_batches(
        Answers,
        fn_constructor_args=(given,),
        batch_size=max(1, slots // 2),  # Ray has four under way in an actor: no slot is ever free
        compute=ray.data.ActorPoolStrategy(size=int(given["models"])),
        num_cpus=float(given["cpus"]),
    )


def main(source: str, target: str, *arguments: str) -> None:
    """Answer what is in one file and not yet in the other."""
    from griffin.batch import parse_line
    from griffin.batch.results import Results

    given = dict(argument.split("=", 1) for argument in arguments)
    with Results(Path(target)) as results, Path(source).open("rb") as stream:
        rows, bad = list[dict[str, Any]](), 0
        for number, raw in enumerate(stream, 1):
            if not raw.strip():
                continue
            try:
                line = parse_line(raw, number)
            except ValueError as error:
                bad += 1
                print(f"line {number}: {error}", file=sys.stderr)
                continue
            if line.custom_id not in results.done:
                rows.append({"number": number, "text": raw.decode()})
        if rows:
            for row in answer(ray.data.from_items(rows), given).iter_rows():
                result = json.loads(row["text"])
                if result["error"]:
                    bad += 1
                    print(f"{result['custom_id']}: {result['error']}", file=sys.stderr)
                else:
                    results.add(result["custom_id"], result)
        print(f"{target}: {len(results.done):,} answered; {bad:,} could not be", file=sys.stderr)
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
