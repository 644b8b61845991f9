"""Proofs that read held-out files, with toys on a small corpus: figures, resuming, tables."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.proofs import bits, extrapolation, screen
from benchmarks.proofs.held_out import bits_of, held_out_ids, open_model, read_recipe, spans_of
from griffin.checkpoints import save_model
from griffin.evaluate.positions import PositionSpan
from griffin.llm import LLM
from griffin.model import Griffin
from griffin.sampling import SamplingParams
from griffin.text import Tokenizer
from griffin.train.export import measure
from griffin.train.report import Reporter
from tests.support.toy_folder import CONFIG, write_toy

LENGTH = 256


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> dict[str, Any]:
    """A Griffin, a transformer with its tokenizer, and a recipe that holds small files out."""
    root = tmp_path_factory.mktemp("proofs")
    griffin = write_toy(root / "griffin")
    transformer = write_toy(root / "transformer")
    save_model(Griffin(CONFIG.replace(block_types=("attention",) * 3)), transformer)
    draw = random.Random(0)
    (root / "corpus").mkdir()
    for number in range(30):
        lines = [f"    x = x + {draw.randrange(100)}  # owl {number}" for _ in range(30)]
        text = "\n".join([f"def f{number}(x):", *lines, "    return x", ""])
        (root / "corpus" / f"file{number}.py").write_text(text)
    recipe = root / "toy.toml"
    recipe.write_text(
        '[model]\npreset = "nano"\n[data]\nsource = "files"\nroot = "corpus"\nheld_out = 0.2\n'
        f"[train]\ntokens = 1000\nrows = 1\nlength = {LENGTH}\nlearning_rate = 1e-3\n"
    )
    return {"griffin": str(griffin), "transformer": str(transformer), "recipe": str(recipe)}


def documents(toys) -> list[list[int]]:
    return held_out_ids(read_recipe(toys["recipe"]), Tokenizer.open(Path(toys["griffin"])))


def run(proof: str, toys, out: Path):
    given = [f"--{name}={value}" for name, value in (toys | {"out": out}).items()]
    return CliRunner().invoke(main, [proof, *given])


def test_streams_are_read_by_three_models_in_every_order(toys, tmp_path):
    how = {**toys, "orders": 2, "length": LENGTH, "first": 32}
    said: list[str] = []
    extrapolation.compare(tmp_path, say=said.append, **(how | {"transformer": None, "orders": 1}))
    assert said and "transformer" not in "".join(said), "the Griffin alone"
    found = extrapolation.compare(tmp_path, say=said.append, **how)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert (tmp_path / "positions.png").read_bytes().startswith(b"\x89PNG")
    windows = {run["model"]: run["window"] for run in found["runs"]}
    assert windows == {"Griffin": 32, "transformer": 32, "transformer, opened": LENGTH}
    ids = documents(toys)
    streams = sum(map(len, ids)) // LENGTH
    assert streams > 3 and all(run["streams"] == streams for run in found["runs"])
    for run in found["runs"]:
        assert [span["begin"] for span in run["spans"]] == [1, 32, 64, 128]
        assert sum(span["tokens"] for span in run["spans"]) == streams * (LENGTH - 1)
    lines = extrapolation.by_model(found)
    own, opened = lines["transformer"], lines["transformer, opened"]
    # Up to the window, and one token, both see the same.
    assert own[0].nats == pytest.approx(opened[0].nats, rel=1e-6)
    assert abs(own[3].nats / opened[3].nats - 1) > 1e-4
    first, second = (run for run in found["runs"] if run["model"] == "Griffin")
    assert first["spans"] != second["spans"], "another order"
    table = extrapolation.table(found)
    assert "| transformer, opened | 256 | " in table and "128 to 255" in table and " ± " in table
    told = len(said)
    assert extrapolation.compare(tmp_path, say=said.append, **how) == found and len(said) == told
    with pytest.raises(ValueError, match="give another folder as --out"):
        extrapolation.compare(tmp_path, say=str, **(how | {"transformer": toys["griffin"]}))


def test_too_little_is_said(toys, tmp_path):
    done = run("extrapolation", toys, tmp_path)
    assert done.exit_code == 2
    assert "tokens, fewer than one stream of 32,768; hold out more" in done.stderr


def test_every_rounding_reads_what_training_measures(toys, tmp_path):
    found = bits.compare(tmp_path, say=str, **toys)
    assert len(found["runs"]) == 2 * 7
    of = {(run["model"], run["weights"]): spans_of([run]) for run in found["runs"]}
    for name, folder in (("Griffin", toys["griffin"]), ("transformer", toys["transformer"])):
        plain = measure(read_recipe(toys["recipe"]), Path(folder), Reporter(quiet=True))
        whole = plain["bits_per_byte"]["whole documents"]
        assert bits_of(of[name, "as stored"]) == pytest.approx(whole, rel=1e-5)
        costs = {str(each): bits_of(of[name, str(each)]) for each in bits.ROUNDINGS}
        assert len(set(costs.values())) == 6, "no two ways of rounding are one"
        apart = {what: abs(cost / whole - 1) for what, cost in costs.items()}
        assert apart["int8"] < apart["int4"] < 0.5
    sizes = {run["weights"]: run["bytes"] for run in found["runs"] if run["model"] == "Griffin"}
    assert sizes["int4"] < sizes["int4, head int8"] < sizes["int8"] < sizes["as stored"]
    assert (tmp_path / "rises.png").read_bytes().startswith(b"\x89PNG")
    table = bits.table(found)
    assert table.count("\n") == 1 + 14 and "| int4, head int8, calibrated | transformer | " in table
    assert run("bits", toys, tmp_path).stdout == f"{table}\n"


def test_training_rows_are_of_training(toys):
    recipe, tokenizer = read_recipe(toys["recipe"]), Tokenizer.open(Path(toys["griffin"]))
    sample = bits.training_rows(recipe, tokenizer, 3000)
    assert sample.shape == (2, 1024) and (sample[:, 0] == tokenizer.bos_id).all()
    held = [tokenizer.decode(ids[1:-1]) for ids in documents(toys)]
    seen = tokenizer.decode(sample[:, 1:].flatten().tolist())
    assert held and not any(text in seen for text in held) and "def f" in seen
    with pytest.raises(ValueError, match="calibration takes 1023 tokens at least"):
        bits.training_rows(recipe, tokenizer, 100)


def test_a_window_is_opened_and_nothing_else(toys):
    model = open_model(toys["transformer"], 99)
    assert model.config == CONFIG.replace(block_types=("attention",) * 3, attention_window_size=99)
    llm = LLM(model, Tokenizer.open(Path(toys["transformer"])))
    plain = LLM(open_model(toys["transformer"]), llm.tokenizer)
    text = "def f(x):\n" * 2
    assert llm.score(text).logprobs == pytest.approx(plain.score(text).logprobs, abs=1e-5)


def test_spans_of_several_runs_are_summed():
    run = {"spans": [vars(PositionSpan(begin=1, end=9, tokens=2, bytes=4, nats=1.5))]}
    (both,) = spans_of([run, run])
    assert (both.tokens, both.bytes, both.nats) == (4, 8, 3.0)
    assert bits_of([]) != bits_of([])


def test_a_screen_is_held_against_the_whole_head(toys, tmp_path):
    given = [f"--griffin={toys['griffin']}", f"--recipe={toys['recipe']}", f"--out={tmp_path}"]
    result = CliRunner().invoke(main, ["screen", *given, "--tokens=60"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "results.json").read_text())
    assert 40 <= found["positions"] <= 80 and (found["panels"], found["of"]) == ([8, 12], 32)
    means = found["means"]
    assert 0.5 < means["same best"] <= 1
    assert 0 < means["KL of three bits"] < means["KL of two bits"] < 1
    assert 0 < means["temperature 1"] < 0.5
    assert set(means) == {"same best", "KL of two bits", "KL of three bits", *screen.CHOICES}


def test_what_a_sampler_draws_from():
    logits = torch.tensor([1.0, 3.0, 2.0, -9.0])
    found = screen.drawn(logits, SamplingParams(temperature=0.5, top_k=2)).tolist()
    other = math.exp(-2)  # (2 - 3) / 0.5
    assert found == pytest.approx([0, 1 / (1 + other), other / (1 + other), 0])
