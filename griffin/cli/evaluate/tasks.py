"""`griffin evaluate --tasks`: tasks of lm-eval, and where their results go."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.model_source import ModelSource
from griffin.outputs import whole_file

if TYPE_CHECKING:
    from griffin.evaluate.harness import Harness
    from griffin.llm import LLM


def evaluate_tasks(
    tasks: str,
    source: ModelSource,
    *,
    plan: bool,
    limit: int | None,
    shots: int | None,
    chat: bool,
    windows: int | None,
    seed: int,
    offline: bool,
    run_code: bool,
    metadata: dict[str, Any],
    out: Path,
    as_json: bool,
) -> None:
    """Measure a model by tasks, print the results and write them to a file."""
    # Libraries look at these when they are imported; the bars are lm-eval's and the data sets'.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

    from importlib.metadata import version

    from griffin.evaluate.suites import NOT_MEASURED, SUITES

    version("lm_eval")  # what is not installed, and a model that is refused, are said at once:
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise click.UsageError(f"--tasks {tasks!r} names none; there are {', '.join(SUITES)}, ...")
    llm = source.llm()  # to import lm-eval takes many seconds

    from griffin.checkpoints import Progress
    from griffin.cli.shared.progress import WorkBar
    from griffin.evaluate.answer_log import AnswerLog
    from griffin.evaluate.harness import Harness
    from griffin.evaluate.lm_eval import GriffinLM
    from griffin.evaluate.results import Value, table
    from griffin.evaluate.run import measure

    click.echo("reading the list of lm-eval's tasks, which takes half a minute", err=True)
    how: dict[str, Any] = {"limit": limit, "chat": chat, "seed": seed, "run_code": run_code}
    how["metadata"] = metadata
    if plan:
        _plan(Harness(GriffinLM(llm, windows=windows), **how), names, shots, as_json)
        return
    beside = out.with_suffix(".answers.jsonl")
    origin = _origin(llm)
    # What an answer depends on besides what was asked: the same weights answer otherwise in int4.
    of = [origin[part] for part in ("weights", "adapter", "state", "format", "device")]
    values = list[Value]()
    with (
        AnswerLog(beside, " ".join(filter(None, of))) as log,
        WorkBar("evaluating", in_bytes=False) as advance,
    ):
        if len(log):
            click.echo(f"going on with {len(log):,} answers in {beside}", err=True)
        lm = GriffinLM(
            llm,
            log=log,
            windows=windows,
            seed=seed,
            progress=lambda name, done, total: advance(Progress(done, total, name)),
        )
        for part in measure(Harness(lm, **how), names, shots):
            values += part
            for each in part:
                click.echo(f"{each.task}: {each.refused or each.value} {each.metric}", err=True)
    found = {
        "command": shlex.join(["griffin", *sys.argv[1:]]),
        **origin,
        "settings": {**how, "shots": shots, "windows": windows},
        "tokens": {"asked": lm.asked, "read": lm.read, "written": lm.written},
        "results": [value.as_dict() for value in values],
    }
    text = json.dumps(found, indent=2, ensure_ascii=False)
    with whole_file(out) as part:
        part.write_text(text + "\n", encoding="utf-8")
    if as_json:
        click.echo(text)
    else:
        click.echo(table(values))
        for name in names:
            if note := NOT_MEASURED.get(name):
                click.echo(note)
        click.echo(
            f"{lm.asked:,} tokens asked, {lm.read:,} read, {lm.written:,} written; all in {out}"
        )
    if all(value.refused for value in values):
        raise click.exceptions.Exit(1)


def _origin(llm: LLM) -> dict[str, Any]:
    """Return what the results are of: model, format, versions."""
    from importlib.metadata import version

    from griffin import __version__
    from griffin.model.packed import rounded_format

    return {
        "model": llm.name,
        "weights": llm.weights_digest,
        "adapter": llm.adapter_digest,
        "state": llm.beginning.digest if llm.beginning else "",
        "tokenizer": llm.tokenizer.digest,
        "format": rounded_format(llm.model) or str(llm.model.dtype).removeprefix("torch."),
        "device": llm.model.device.type,
        "versions": {
            "griffin": __version__,
            "lm_eval": version("lm_eval"),
            "datasets": version("datasets"),
        },
    }


def _plan(harness: Harness, names: Sequence[str], shots: int | None, as_json: bool) -> None:
    """Say what tasks ask of the model, and how long that takes at the rates of this moment."""
    from dataclasses import asdict

    from griffin.evaluate.counting import rates_of
    from griffin.evaluate.run import count, total

    parts = list(count(harness, names, shots))
    rates = rates_of(harness.lm.llm)
    whole = total(parts)
    if as_json:
        told = [{**asdict(p), "hours": rates.hours(p.read, p.written)} for p in (*parts, whole)]
        click.echo(json.dumps({"rates": asdict(rates), "tasks": told}, indent=2))
        return
    for part in (*parts, whole):
        if part.refused:
            click.echo(f"{part.task}: not measured: {part.refused}")
            continue
        hours = rates.hours(part.read, part.written)
        click.echo(
            f"{part.task}: {part.read:,} tokens to read (of {part.asked:,} asked), at most"
            f" {part.written:,} to write: {hours:,.2f} hours at most"
        )
    click.echo(
        f"at {rates.reading:,.0f} tokens/s read and {rates.writing:,.0f} written, measured now"
    )
