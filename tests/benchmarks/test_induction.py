"""The induction heads' comparison on a few steps: its task, its resuming, its table."""

from __future__ import annotations

import json

import torch

from benchmarks.proofs.induction import MARK, compare, rows, table


def test_a_text_has_two_marks_and_the_answer_after_the_first():
    tokens, answers = rows(50, 64, torch.Generator().manual_seed(0))
    assert ((tokens == MARK).sum(1) == 2).all() and (tokens[:, -1] == MARK).all()
    first = (tokens == MARK).int().argmax(1)
    assert torch.equal(tokens[torch.arange(50), first + 1], answers)
    assert first.min() < 10 and first.max() > 50


def test_what_is_there_is_not_run_again(tmp_path):
    said: list[str] = []
    few = {"lengths": (256, 300), "rates": (1e-3,), "seeds": (0, 1), "steps": 1}
    found = compare(tmp_path, said.append, texts=lambda _: 2, **few)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept == found and len(found["runs"]) == 6
    assert {one["model"] for one in found["runs"]} == {"Griffin", "Hawk", "MQA"}
    assert all(set(one["right"]) == {"256", "300"} for one in found["runs"])
    lines = len(said)
    assert compare(tmp_path, said.append, texts=lambda _: 2, **few) == found and len(said) == lines
    assert "| MQA | " in table(found) and "| 256 | 300 |" in table(found)
