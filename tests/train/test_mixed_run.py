"""A run of several sources: shares, stages, caps, held-out figures, and the same bits again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.checkpoints import load_model
from griffin.cli.shared.held_out import held_out_table
from griffin.train.evaluate import bits_in_rows
from griffin.train.export import export, measure
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from tests.train.conftest import MODEL
from tests.train.test_loop import _log

STAGES = [
    {"name": "both", "steps": 4},
    {"name": "code", "steps": 4, "weights": {"code": 0.75, "web": 0.25}, "learning_rate": 1e-4},
]


@pytest.fixture
def build(corpus_folder: Path, tmp_path: Path) -> Callable[..., Trainer]:
    """Two sources of twenty files each, in a folder of the given name."""

    def make(
        name: str, web: dict[str, Any] | None = None, *, extend: bool = False, **train: Any
    ) -> Trainer:
        tables = [
            {"name": "web", "include": ["part0/*.py", "part1/*.py"], "weight": 0.5},
            {"name": "code", "include": ["part2/*.py", "part3/*.py"], "weight": 0.5},
        ]
        tables = [{"path": str(corpus_folder), "format": "text"} | table for table in tables]
        tables[0] |= web or {}
        values = {"rows": 2, "length": 64, "accumulation": 2, "warmup_steps": 0, "log_every": 1}
        values |= {"eval_every": 4, "schedule": "constant", "stage": STAGES} | train
        recipe = Recipe.from_dict(
            {"model": MODEL, "data": {"source": tables, "held_out": 0.2}, "train": values}
        )
        return Trainer(recipe, tmp_path / name, Reporter(quiet=True), extend=extend)

    return make


@pytest.mark.parametrize("carry", [False, True])
def test_shares_stages_and_figures_of_each_source(
    build: Callable[..., Trainer], carry: bool
) -> None:
    with build("straight", carry=carry) as straight:
        straight.run()
        entries = _log(straight)
        tokens = [{n: s["tokens"] for n, s in e["sources"].items()} for e in entries]
        step = 2 * 2 * 64
        assert tokens[3] == {"web": 2 * step, "code": 2 * step}
        assert tokens[7] == {"web": 3 * step, "code": 5 * step}
        assert [entry["stage"] for entry in entries] == ["both"] * 4 + ["code"] * 4
        last = entries[-1]
        each = {n: s["held_out_bits_per_byte"] for n, s in last["sources"].items()}
        sizes = {name: size for name, (_, size) in straight._validation.items()}
        whole = sum(bits * sizes[name] for name, bits in each.items()) / sum(sizes.values())
        assert last["held_out_bits_per_byte"] == pytest.approx(whole)
        assert each["web"] != each["code"]
        weights = [p.detach().clone() for p in straight.model.parameters()]
    for steps in range(8):
        with build("stopped", carry=carry) as ours:
            assert ours.progress.step == steps
            ours.step()
            ours.save()
            ends = ours.model.parameters()
    assert all(torch.equal(one, p.detach()) for one, p in zip(weights, ends, strict=True))


def test_results_have_figures_of_each_source(build: Callable[..., Trainer]) -> None:
    with build("run") as ours:
        ours.step()
        results = export(ours)
    assert results is not None and list(results["sources"]) == ["web", "code"]
    held, kinds = results["held_out"], list(results["bits_per_byte"])
    for key in ("documents", "bytes", "tokens"):
        assert held[key] == sum(found[key] for found in results["sources"].values())
    model = load_model(ours.out / "model", dtype=torch.float32)
    for source in ours.data.sources:
        found, store = results["sources"][source.name], source.held_out
        documents = [store.encoded(place) for place in range(len(store.paths))]
        assert found["bytes"] == store.num_bytes and list(found["bits_per_byte"]) == kinds
        alone = bits_in_rows(model, documents, 64, 4) / store.num_bytes
        assert found["bits_per_byte"]["rows of 64"] == pytest.approx(alone)
    for kind in ("whole documents", "rows of 64", "gzip -9, each file"):
        parts = [f["bits_per_byte"][kind] * f["bytes"] for f in results["sources"].values()]
        assert results["bits_per_byte"][kind] == pytest.approx(sum(parts) / held["bytes"])
    again = measure(ours.recipe, ours.out / "model", Reporter(quiet=True))
    assert again["sources"] == results["sources"]
    heads, *rows = held_out_table(results)[2:]
    assert heads.split() == ["all", "web", "code"] and len(rows) == len(kinds)
    code = results["sources"]["code"]["bits_per_byte"]["whole documents"]
    assert rows[0].split()[2:] == [f"{code:.4f}", "whole", "documents"]


def test_a_cap_frees_its_share_and_too_few_epochs_are_refused(
    build: Callable[..., Trainer],
) -> None:
    with build("run", {"epochs": 0.5}) as ours:
        rows = ours.packer.sources[0].packer.rows_in(0.5)
        assert ours.packer.read(32) == [rows, 32 - rows] and rows < 12
    alone = [{"steps": 8, "weights": {"web": 1.0}}]
    with pytest.raises(ValueError, match=r"budget is 32 rows, but after .* of web \(0\.5 epochs\)"):
        build("other", {"epochs": 0.5}, stage=alone)


def test_an_extension_keeps_the_stages_that_the_sources_were_mixed_in(
    build: Callable[..., Trainer],
) -> None:
    """Of two stages with the same weights one could be made, but rows are dealt anew in each."""
    with build("run", stage=[{"steps": 3}, {"steps": 3}]) as ours:
        ours.run()
    with pytest.raises(ValueError, match=r"began after steps \[3\], .* after \[\]; sources are"):
        build("run", extend=True, stage=[{"steps": 8}])
    with build("run", extend=True, stage=[{"steps": 3}, {"steps": 5}]) as longer:
        longer.run()
    with build("planned", stage=[{"steps": 3}, {"steps": 5}]) as planned:
        planned.run()
        assert all(map(torch.equal, planned.model.parameters(), longer.model.parameters()))
