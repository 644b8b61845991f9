"""A file of requests to a file of answers: all slots full, beginnings read once, no line twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin.batch import local
from griffin.batch.lines import BatchLine, parse_line, result_line
from griffin.batch.results import Results
from griffin.server.app import App
from griffin.server.service import Service

_AHEAD = 256  # answers that may wait for an earlier one to be written


@dataclass
class Count:
    """How far a batch is. before: lines that an earlier run answered. bad: of the errors file."""

    lines: int = 0
    before: int = 0
    answered: int = 0
    bad: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    @property
    def done(self) -> int:
        return self.before + self.answered + self.bad


def check_files(source: Path, target: Path, errors: Path) -> None:
    """Raise ValueError for files that no batch can be read from or written to."""
    if not source.is_file():
        raise ValueError(f"there is no file {source} to read")
    if len({path.resolve() for path in (source, target, errors)}) < 3:
        raise ValueError("requests, answers and errors are three different files")
    for path in (target, errors):
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")


class BatchRun:
    """Answer the lines of a file.

    service: of the model; nobody else uses it meanwhile.
    source:  JSON lines (`parse_line`).
    target:  the answers, OpenAI's batch results in the order of the lines; what is there already is
             not asked again.
    errors:  lines that could not be answered, and why; written anew, and removed if there are none.
    at_once: requests under way, at least 1: more than the slots, so that none is ever free.
    Raises ValueError for files that cannot be read or written.
    """

    def __init__(
        self, service: Service, source: Path, target: Path, errors: Path, *, at_once: int
    ) -> None:
        check_files(source, target, errors)
        self.service = service
        self.count = Count()
        self._source, self._target, self._errors = source, target, errors
        self._at_once = at_once

    def run(self, progress: Callable[[Count], object] | None = None) -> Count:
        """Answer what is not answered yet; `progress` is called after each line.

        KeyboardInterrupt ends it between two lines: what was answered is kept, and a second run
        goes on there.
        """
        self._progress = progress or (lambda _count: None)
        with self._source.open("rb") as stream:
            self.count.lines = sum(1 for line in stream if line.strip())
        self._errors.unlink(missing_ok=True)
        with Results(self._target) as results:
            self.count.before = len(results.done)
            asyncio.run(self._answer(results))
        return self.count

    async def _answer(self, results: Results) -> None:
        free, ahead = asyncio.Semaphore(self._at_once), asyncio.Semaphore(_AHEAD)
        finished: dict[int, tuple[BatchLine, int, dict[str, Any]]] = {}
        written, asked = 0, 0
        tasks: set[asyncio.Task[None]] = set()

        async def ask(place: int, line: BatchLine, app: App) -> None:
            nonlocal written
            try:
                finished[place] = (line, *await local.post(app, line.path, line.body))
            finally:
                free.release()
            while written in finished:
                self._write(results, *finished.pop(written))
                written += 1
                ahead.release()

        async with local.opened(self.service) as app:
            try:
                for line in self._lines(results.done):
                    await ahead.acquire()
                    await free.acquire()
                    task = asyncio.create_task(ask(asked, line, app))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    asked += 1
                await asyncio.gather(*tasks)
            except BaseException:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise

    def _lines(self, done: set[str]) -> Iterator[BatchLine]:
        """Give the lines that are to be asked; others go to the errors."""
        seen: dict[str, int] = {}
        with self._source.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                if not raw.strip():
                    continue
                try:
                    line = parse_line(raw, number)
                    if (first := seen.setdefault(line.custom_id, number)) != number:
                        raise ValueError(f"custom_id {line.custom_id!r} is that of line {first}")
                except ValueError as error:
                    self._fail(number, None, {"message": str(error), "code": "invalid_line"})
                    continue
                if line.custom_id not in done:
                    yield line

    def _write(self, results: Results, line: BatchLine, status: int, body: dict[str, Any]) -> None:
        if status != 200:
            self._fail(line.number, line.custom_id, body.get("error"), status)
            return
        count, usage = self.count, body.get("usage") or {}
        count.answered += 1
        count.prompt_tokens += usage.get("prompt_tokens", usage.get("input_tokens", 0))
        count.generated_tokens += usage.get("completion_tokens", usage.get("output_tokens", 0))
        details = usage.get("prompt_tokens_details", usage.get("input_tokens_details")) or {}
        count.cached_tokens += details.get("cached_tokens", 0)
        results.add(line.custom_id, result_line(line, status, body))
        self._progress(count)

    def _fail(
        self, number: int, custom_id: str | None, error: Any, status: int | None = None
    ) -> None:
        self.count.bad += 1
        told = {"line": number, "custom_id": custom_id, "status_code": status, "error": error}
        with self._errors.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(told) + "\n")
        self._progress(self.count)
